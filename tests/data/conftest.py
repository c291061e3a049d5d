import torch

torch.set_num_threads(1)  # test processes run side by side: their threads would wait for each other
