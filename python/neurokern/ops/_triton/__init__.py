"""The ops as Triton kernels: the same bits as the C++ ones, for GPUs without the CUDA module.

One module per op, imported at the first launch: importing Triton takes a second and needs its package. With
``TRITON_INTERPRET=1`` (set before that import) they run on CPU tensors, slowly, to be tested where no GPU is.
"""
