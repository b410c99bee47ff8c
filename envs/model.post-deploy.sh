#!/usr/bin/env bash
set -euo pipefail
# stable-audio-tools says that it needs Python 3.10, and runs with this one.
pip install --no-deps --ignore-requires-python stable-audio-tools==0.0.20
pip install --no-deps aisfx==0.1.2 laion-clap==1.1.7 torchlibrosa==0.1.0 progressbar==2.5 wget==3.2
