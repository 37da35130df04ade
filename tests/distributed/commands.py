"""Commands of `atmanrl`, one after the other in one process of several. Their arguments are a JSON file."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

import atmanrl.commands.run_cli  # noqa: F401  (once, before the processes are forked)
from atmanrl.__main__ import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    for command in json.loads(Path(sys.argv[1]).read_text()):
        if status := main(command):
            sys.exit(status)
    dist.destroy_process_group()
