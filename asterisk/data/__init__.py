"""Text sources, the pairs made from them, and the teacher's vectors of the pairs: the extra `train`."""
