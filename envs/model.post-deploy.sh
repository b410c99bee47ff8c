#!/usr/bin/env bash
set -euo pipefail
pip install --no-deps stable-audio-tools==0.0.19 k-diffusion==0.1.1 dctorch==0.1.2 \
    aisfx==0.1.2 laion-clap==1.1.7 torchlibrosa==0.1.0 progressbar==2.5 wget==3.2
