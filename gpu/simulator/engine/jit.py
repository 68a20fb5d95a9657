"""LLVM IR text to machine code in this process: verify, optimise, emit an object, load it."""

from __future__ import annotations

import functools
import threading

import llvmlite.binding as llvm

_lock = threading.Lock()


@functools.cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@functools.cache
def processor() -> tuple[str, str]:
    """Name and feature string of the host processor."""
    _initialise()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _machine(level: int) -> llvm.TargetMachine:
    _initialise()
    name, features = processor()
    target = llvm.Target.from_default_triple()
    # the large code model is not needed: helpers are reached through absolute symbols in the same JIT
    machine: llvm.TargetMachine = target.create_target_machine(
        cpu=name, features=features + ",-prefer-256-bit", opt=level, reloc="pic", codemodel="jitdefault", jit=True
    )
    return machine


def compile_object(text: str, thorough: bool = True) -> bytes:
    """Optimises LLVM IR and returns a relocatable object for this processor.

    The code of kernels is straight and long and comes out well: not `thorough`, a few passes clean it up, in a fifth of
    the time.
    """
    with _lock:
        module = llvm.parse_assembly(text)
        module.verify()
        machine = _machine(2 if thorough else 1)
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(machine, options)
        if thorough:
            passes = builder.getModulePassManager()
        else:
            passes = llvm.create_new_module_pass_manager()
            passes.add_sroa_pass()
            passes.add_simplify_cfg_pass()
            passes.add_instruction_combine_pass()
            passes.add_simplify_cfg_pass()
        passes.run(module, builder)
        machine.set_asm_verbosity(False)
        emitted: bytes = machine.emit_object(module)
        return emitted


class Loaded:
    """Machine code in memory; the addresses stay valid while the object lives."""

    def __init__(self, image: bytes, symbols: dict[str, int], exported: tuple[str, ...]) -> None:
        with _lock:
            machine = _machine(2)
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
            for name, address in symbols.items():
                llvm.add_symbol(name, address)
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(image))
            self._engine.finalize_object()
            self.addresses = {name: int(self._engine.get_function_address(name)) for name in exported}
        missing = [name for name, address in self.addresses.items() if not address]
        if missing:
            raise RuntimeError(f"the JIT lost {missing}")
