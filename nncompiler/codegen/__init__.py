"""Takes loop statements, gives LLVM IR as text and object code: what the processor does."""
