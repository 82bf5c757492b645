"""Known flags of ms-swift and vLLM that are no fields: refused with the reason, or needless and named in a notice."""

LATER = 'this version has no such feature'
MERGE_ONLY = f'{LATER}: export merges a LoRA only'

# for every command
ANY: dict[str, str] = {
    'custom_register_path': 'no code is loaded from outside: give --model_type and --template_type',
    'custom_dataset_info': 'give the files themselves on --dataset',
    'rope_scaling': "the context length is the one in the model's config",
    'model_kwargs': 'the model is built from its config alone',
    'quantization_bit': f'{LATER}: models are trained and run in bf16, fp16 or fp32',
    'quantization_config': f'{LATER}: models are trained and run in bf16, fp16 or fp32',
    'bnb_4bit_quant_type': f'{LATER}: models are trained and run in bf16, fp16 or fp32',
    'bnb_4bit_comp_dtype': f'{LATER}: models are trained and run in bf16, fp16 or fp32',
    'quant_method': MERGE_ONLY,
    'quant_bits': MERGE_ONLY,
    'tools_prompt': "tools are written as the checkpoint's own chat template writes them",
    'push_to_hub': f"{LATER}: upload the output folder with the hub's own client",
    'hub_model_id': f"{LATER}: upload the output folder with the hub's own client",
    'hub_token': f"{LATER}: log in with the hub's own client",
    'use_hf': 'set the environment variable USE_HF=1 instead',
    'custom_train_dataset_path': 'give the file on --dataset',
    'custom_val_dataset_path': 'give the file on --val_dataset',
}

SFT: dict[str, str] = {
    'train_dataset_sample': 'write the number behind the data set: --dataset my.jsonl#1000',
    'self_cognition_sample': 'write --dataset self-cognition#500',
    'packing': LATER,
    'streaming': f'{LATER}: data sets are read into memory',
    'packing_cache': LATER,
    'lora_lr_ratio': f'{LATER}: A and B have one learning rate',
    'use_dora': f'{LATER}: a DoRA adapter could not be served',
    'init_lora_weights': f'{LATER}: A starts at random and B at zero, so that the base model keeps its weights',
    'lora_modules_to_save': f'{LATER}: only linear layers get an adapter',
    'modules_to_save': f'{LATER}: only linear layers get an adapter',
    'lora_bias_trainable': f'{LATER}: biases stay as they are',
    'target_regex': 'name the layers with --lora_target_modules',
    'neftune_noise_alpha': LATER,
    'freeze_parameters': LATER,
    'deepspeed': f'{LATER}: several GPUs train data-parallel, with NPROC_PER_NODE',
    'fsdp': f'{LATER}: several GPUs train data-parallel, with NPROC_PER_NODE',
    'sequence_parallel_size': LATER,
    'use_liger': LATER,
    'use_galore': LATER,
    'optim': f'{LATER}: the optimizer is AdamW',
    'loss_scale': 'every assistant turn carries the loss, but those that say "loss": false',
    'ref_model_type': LATER,
    'resume_only_model': LATER,
    'acc_strategy': LATER,
    'metric_warmup_step': LATER,
    'early_stop': LATER,
    'predict_with_generate': 'run swiftlite infer --load_dataset_config true on the checkpoint',
    'merge_lora': 'run swiftlite export --merge_lora true on the checkpoint',
    'merge_lora_and_save': 'run swiftlite export --merge_lora true on the checkpoint',
    'ckpt_dir': 'name the model with --model_type or --model_id_or_path; --resume_from_checkpoint goes on with a run',
}

RUN: dict[str, str] = {
    'num_beams': f'{LATER}: one reply is drawn at a time',
    'chat_template': 'the template is known from the model: --template_type picks another',
    'limit_mm_per_prompt': f'{LATER}: models read text',
    'quantization': f'{LATER}: weights are bf16, fp16 or fp32',
    'kv_cache_dtype': f'{LATER}: the cache has the dtype of the weights',
    'pipeline_parallel_size': f'{LATER}: use --tensor_parallel_size',
    'data_parallel_size': f'{LATER}: use --tensor_parallel_size',
    'speculative_config': LATER,
    'speculative_model': LATER,
    'ssl_ca_certs': LATER,
    'root_path': LATER,
    'tool_call_parser': 'the parser is the one of --template_type',
    'reasoning_parser': LATER,
    'guided_decoding_backend': LATER,
}

REFUSED: dict[str, dict[str, str]] = {
    'sft': {**ANY, **SFT},
    'export': {
        **ANY,
        **dict.fromkeys(('quant_n_samples', 'quant_seqlen', 'quant_batch_size', 'quant_device_map'), MERGE_ONLY),
        **dict.fromkeys(('quant_output_dir', 'dataset', 'to_peft_format', 'to_ollama', 'to_mcore'), MERGE_ONLY),
    },
    'infer': {**ANY, **RUN},
    'deploy': {**ANY, **RUN, 'dataset': 'run swiftlite infer to answer a data set'},
    'bench': {
        **ANY,
        **RUN,
        'ckpt_dir': 'measure the model itself, with --model_type or --model_id_or_path',
        'merge_lora': 'measure the merged checkpoint itself, with --model_id_or_path',
    },
}

# the value of a refused flag that asks for what swiftlite does anyway; for all: false, 0, none
OFF: dict[str, str] = {
    'num_beams': '1',
    'sequence_parallel_size': '1',
    'pipeline_parallel_size': '1',
    'data_parallel_size': '1',
    'init_lora_weights': 'true',
    'optim': 'adamw_torch',
    'kv_cache_dtype': 'auto',
}
ALWAYS_OFF = ('false', '0', 'none', 'null')

ONE_ENGINE = "there is one engine, swiftlite's own"
BY_ITSELF = 'swiftlite chooses by itself'

# flags that ask for nothing that matters here; accepted, with one notice
NEEDLESS: dict[str, dict[str, str]] = {
    'sft': {
        'use_flash_attn': BY_ITSELF,
        'attn_impl': BY_ITSELF,
        'lazy_tokenize': 'all rows are encoded before the training starts',
        'preprocess_num_proc': BY_ITSELF,
        'dataset_num_proc': BY_ITSELF,
        'dataloader_num_workers': BY_ITSELF,
        'dataloader_pin_memory': BY_ITSELF,
        'ddp_backend': BY_ITSELF,
        'ddp_find_unused_parameters': BY_ITSELF,
        'ignore_args_error': 'an unknown flag is always an error',
        'check_dataset_strategy': 'every row is checked, and what is dropped is counted',
        'trust_remote_code': 'no code is loaded from outside',
        'tuner_backend': 'adapters are those of peft',
        'disable_tqdm': 'the progress bar shows in a terminal only',
        'save_only_model': 'a checkpoint holds what is needed to resume',
        'save_on_each_node': BY_ITSELF,
        'model_layer_cls_name': BY_ITSELF,
    },
    'export': {
        'use_flash_attn': BY_ITSELF,
        'merge_device_map': 'a merge runs on the CPU, one tensor at a time',
        'device_map': 'a merge runs on the CPU, one tensor at a time',
        'safe_serialization': 'weights are always written as safetensors',
        'trust_remote_code': 'no code is loaded from outside',
        'infer_backend': ONE_ENGINE,
    },
}
RUNTIME: dict[str, str] = {
    'infer_backend': ONE_ENGINE,
    'use_flash_attn': BY_ITSELF,
    'attn_impl': BY_ITSELF,
    'vllm_enable_lora': 'adapters are served whenever there are any',
    'disable_custom_all_reduce': BY_ITSELF,
    'trust_remote_code': 'no code is loaded from outside',
    'swap_space': 'nothing is swapped: a preempted request is computed again',
    'cpu_offload_gb': 'nothing is offloaded',
    'worker_use_ray': ONE_ENGINE,
    'engine_use_ray': ONE_ENGINE,
    'distributed_executor_backend': ONE_ENGINE,
    'enable_chunked_prefill': 'prompts are always read in chunks',
    'disable_log_requests': 'use --verbose false',
    'disable_log_stats': 'use --log_interval 0',
    'enable_log_requests': 'use --verbose true',
    'uvicorn_log_level': 'use --verbose and --log_interval',
    'max_cpu_loras': BY_ITSELF,
    'enable_auto_tool_choice': 'tool calls are always read from replies when tools are given',
    'max_seq_len_to_capture': BY_ITSELF,
    'num_scheduler_steps': BY_ITSELF,
    'device': BY_ITSELF,
    'device_map': BY_ITSELF,
    'safe_serialization': 'inference writes no weights',
}
NEEDLESS['infer'] = NEEDLESS['deploy'] = NEEDLESS['bench'] = RUNTIME
