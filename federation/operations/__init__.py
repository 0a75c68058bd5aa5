"""What a person's word does to the store: the same for the command line and for the console."""
