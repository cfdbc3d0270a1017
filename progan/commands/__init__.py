"""The commands of `progan`: one class each, whose fields are its flags."""
