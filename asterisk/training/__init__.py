"""What training shares: tokenizer, batches, teacher, losses, the training loop: the extra `train`."""
