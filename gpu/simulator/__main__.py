"""`python -m loadsparse.gpu.simulator script.py`: a numba.cuda script on the simulator, without a GPU."""

from loadsparse.gpu.simulator.frontend.script import main

if __name__ == "__main__":
    raise SystemExit(main())
