"""FLOPs and live tensor bytes of some optimizer steps: the same on every machine."""

import gc
import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def _attention(query, key, value, *args, **kwargs):  # shapes, not tensors
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad, query, key, value, *args, **kwargs):
    return 5 * sdpa_flop_count(query, key, value) // 2  # five products where the forward has two


# The CPU's attention kernel, which torch's own table leaves out.
_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


_STEP = 1 / 64  # of what is there already, by which a peak must be passed to be one


class LiveBytes(TorchDispatchMode):
    """Follows every storage that is made while it is on, until it is freed; those of `known` are there already.

    Where activations are recomputed, torch leaves a block by an exception, whose traceback goes through this mode's frames and holds what
    they hold until Python's garbage collector runs. So that runs before a peak is believed.
    """

    def __init__(self, known):
        super().__init__()
        self.known, self.held, self.now, self.peak = known, {}, 0, 0
        self.step = int(_STEP * sum(known.values()))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run the operator, then note the storages of its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage):
        key = storage._cdata
        if key not in self.held and key not in self.known and storage.nbytes():
            self.held[key] = storage.nbytes()
            self.now += storage.nbytes()
            if self.now > self.peak + self.step:
                gc.collect()
                self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key):
        self.now -= self.held.pop(key, 0)


class Counters:
    """Both counters, around some steps."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.flops = FlopCounterMode(display=False, custom_mapping=_CPU)

    def start(self):
        """Count from here on."""
        gc.collect()
        gc.freeze()  # what is there by now need not be looked through again and again
        trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        known = _storages([*self.model.parameters(), *self.model.buffers(), *trained, *tree_iter(dict(self.optimizer.state))])
        self.kept, self.live = sum(known.values()), LiveBytes(known)
        self.live.__enter__()
        self.flops.__enter__()
        return self

    def stop(self):
        """What was counted. `kept`: weights and optimizer state, which live throughout."""
        self.flops.__exit__(None, None, None)
        self.live.__exit__(None, None, None)
        return {"flops": int(self.flops.get_total_flops()), "kept": self.kept, "peak": self.kept + self.live.peak}


def _storages(items):
    storages = {}
    for item in items:
        if isinstance(item, torch.Tensor):
            storages[item.untyped_storage()._cdata] = item.untyped_storage().nbytes()
    return storages
