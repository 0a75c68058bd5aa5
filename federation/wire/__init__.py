"""Pure translation between the model and foreign forms, one file per form."""
