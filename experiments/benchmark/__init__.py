"""How fast is a sweep, beside the same work in PyTorch and Keras?"""
