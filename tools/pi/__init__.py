"""`make pi`: the runtime as a Raspberry Pi has it, run on this machine by an emulator and compared with it."""
