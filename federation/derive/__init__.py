"""Pure decisions: functions of plain values, without clock, network or store."""
