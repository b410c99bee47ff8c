#!/usr/bin/env bash
set -euo pipefail
pip install --no-deps stable-audio-tools==0.0.19 descript-audiotools==0.7.2 k-diffusion==0.1.1 dctorch==0.1.2
