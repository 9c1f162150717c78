"""Mining: proposals of a detector turn a partly labelled annotation file into a fuller one, for training anew."""
