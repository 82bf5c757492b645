"""What becomes of ms-swift's flags (2.6, with names of 3.x and 4.x) and vLLM's that are no fields of a command."""

from dataclasses import fields

from swiftlite.args.fields import Args
from swiftlite.registry.known_flags import Known, needless, refused, table
from swiftlite.registry.vllm_flags import BY_ITSELF, CACHE, ENGINE, LATER, NO_CODE, ONE_ENGINE, SERVER, TEXT

UPLOAD = "upload the folder with the hub's own client"
QLORA = 'models are run in bf16, fp16 or fp32'
FOUR_BITS = '4 bits are those of bitsandbytes, nf4 or fp4'
TUNERS = '--sft_type is lora or full'
SPREAD = 'several GPUs train data-parallel, with NPROC_PER_NODE, and share the weights out with --fsdp'
MERGE_ONLY = 'export merges a LoRA only'
OPTIMIZER = 'the optimizer is AdamW'
NUMBER = 'write the number behind the data set: my.jsonl#1000'
DTYPE = 'use --dtype bf16, fp16 or fp32'
NO_TEXT = 'no text is generated here'
NO_ENGINE = 'a merge runs on the CPU, one tensor at a time, without the engine'

# ms-swift's, for every command
ANY = table(
    needless(
        BY_ITSELF,
        'use_flash_attn attn_impl device_map device_map_config device_map_config_path ddp_timeout',
    ),
    needless('weights are always written as safetensors', 'save_safetensors safe_serialization'),
    needless('an unknown flag is always an error', 'ignore_args_error'),
    needless('every row is checked, and what is dropped is counted', 'check_dataset_strategy=none|discard|warning'),
    needless('the version that is named is the version that is used', 'check_model_is_latest'),
    refused('rows that cannot be used are counted by reason, with the first line', 'strict'),
    refused('what is in the cache is used', 'download_mode=reuse_dataset_if_exists'),
    refused('rename the columns in the file, or map them in --custom_dataset_info', 'columns'),
    refused(NO_CODE, 'external_plugins local_repo_path'),
    refused("the model is the one that its checkpoint's config describes", 'rope_scaling model_kwargs'),
    refused(QLORA, 'quantization_bit bnb_4bit_comp_dtype=auto bnb_4bit_quant_type=nf4 bnb_4bit_use_double_quant=true'),
    refused(QLORA, 'bnb_4bit_quant_storage hqq_axis hqq_dynamic_config_path quantization_config quant_bits'),
    refused(QLORA, 'quant_method bnb_4bit_compute_dtype'),
    refused("tools are written as the checkpoint's own chat template writes them", 'tools_prompt=react_en'),
    refused("tools are written as the checkpoint's own chat template writes them", 'agent_template'),
    refused(UPLOAD, 'push_to_hub hub_model_id hub_token hub_private_repo hub_strategy=every_save push_hub_strategy'),
    refused('set the environment variable USE_HF=1 instead', 'use_hf'),
    refused(CACHE, 'model_cache_dir'),
    refused('the devices are those of CUDA_VISIBLE_DEVICES, filled evenly', 'device_max_memory max_memory'),
    refused(TEXT, 'rescale_image=-1 max_pixels norm_bbox'),
    refused('tokens are added while a model is trained, with swiftlite sft', 'new_special_tokens'),
    refused('models are language models', 'task_type=causal_lm num_labels problem_type'),
    refused(DTYPE, 'bf16 fp16 pure_bf16'),
)

# keys of LLaMA-Factory's files that are no other names of fields
LLAMA_FACTORY = table(
    needless('embeddings get room for new tokens', 'resize_vocab'),
    refused('what is encoded is kept by what it was made of: see --data_cache', 'tokenized_path cached_dataset'),
    needless('every training here is one of conversations or plain text', 'stage=sft|pt do_train=true'),
    needless('a run always gets a folder of its own', 'overwrite_output_dir'),
    needless(BY_ITSELF, 'overwrite_cache preprocessing_num_workers flash_attn low_cpu_mem_usage'),
    needless('loss curves are drawn whenever matplotlib is there', 'plot_loss'),
    refused('use --max_length, and --truncation_strategy right to cut longer rows', 'cutoff_len'),
    refused(NUMBER, 'max_samples'),
    refused('give the files themselves, or --custom_dataset_info', 'dataset_dir=data'),
    refused('use --val_dataset', 'eval_dataset'),
    refused('use --gradient_checkpointing false', 'disable_gradient_checkpointing'),
    refused('use --init_lora_weights pissa, or pissa_niter_16', 'pissa_init pissa_iter=16 pissa_convert'),
    refused('use --sft_type full with --freeze_parameters_ratio', 'freeze_trainable_layers=2 freeze_trainable_modules'),
    refused('use --modules_to_save beside a LoRA', 'freeze_extra_modules'),
    needless(FOUR_BITS, 'quantization_method=bnb|bitsandbytes'),
)

SFT = table(
    ANY,
    LLAMA_FACTORY,
    needless('all rows are encoded before the training starts', 'lazy_tokenize'),
    needless('a million rows are packed within a second', 'packing_cache packing_num_proc'),
    needless(
        BY_ITSELF,
        """preprocess_num_proc dataset_num_proc dataloader_num_workers dataloader_pin_memory
        dataloader_persistent_workers dataloader_prefetch_factor ddp_backend ddp_find_unused_parameters
        ddp_broadcast_buffers save_on_each_node model_layer_cls_name vit_use_gc torch_empty_cache_steps""",
    ),
    needless(NO_CODE, 'trust_remote_code'),
    needless('adapters are those of peft', 'tuner_backend=peft|swift'),
    needless('training runs in transformers', 'train_backend=transformers'),
    needless('the progress bar shows in a terminal only', 'disable_tqdm logging_first_step'),
    needless('a checkpoint holds what is needed to resume', 'save_only_model only_save_model'),
    needless('tokens are counted always', 'include_num_input_tokens_seen'),
    needless(NO_TEXT, 'max_new_tokens do_sample temperature top_k top_p repetition_penalty num_beams infer_backend'),
    needless('every column of a row is used or named', 'remove_unused_columns'),
    refused(
        TUNERS,
        """boft_block_size=4 boft_block_num boft_n_butterfly_factor=1 boft_dropout=0.0 boft_target_modules
        boft_modules_to_save vera_rank=256 vera_projection_prng_key vera_dropout=0.0 vera_d_initial=0.1
        vera_target_modules vera_modules_to_save fourier_n_frequency=2000 fourier_scaling=300.0 adapter_act=gelu
        adapter_length=128 adalora_target_r=8 adalora_init_r=12 adalora_tinit adalora_tfinal adalora_deltat=1
        adalora_beta1=0.85 adalora_beta2=0.85 adalora_orth_reg_weight=0.5 ia3_feedforward_modules ia3_target_modules
        ia3_modules_to_save llamapro_num_new_blocks=4 llamapro_num_groups lisa_activated_layers lisa_step_interval=20
        reft_layer_key reft_layers reft_rank=4 reft_intervention_type=loreftintervention reft_args
        use_galore galore_target_modules galore_rank=128 galore_update_proj_gap=50 galore_scale=1.0
        galore_proj_type=std galore_optim_per_parameter galore_with_embedding galore_quantization galore_proj_quant
        galore_proj_bits=4 galore_proj_group_size=256 galore_cos_threshold=0.4 galore_gamma_proj=2
        galore_queue_size=5""",
    ),
    refused(TEXT, 'freeze_vit freeze_aligner vit_lr aligner_lr vit_gradient_checkpointing'),
    refused(
        'name the parameters with --freeze_parameters and --trainable_parameters',
        'freeze_llm freeze_parameters_regex trainable_parameters_regex',
    ),
    refused('biases stay as they are', 'lora_bias_trainable=none lora_bias=none'),
    refused('adapter weights are fp32 while they are trained', 'lora_dtype=auto|fp32|float32'),
    refused('embeddings learn at the rate of A', 'lora_plus_lr_embedding loraplus_lr_embedding=1e-6'),
    needless('noise is added by swiftlite itself', 'neftune_backend=transformers|swift'),
    needless(FOUR_BITS, 'quant_method=bnb'),
    refused(FOUR_BITS, 'bnb_4bit_quant_storage hqq_axis hqq_dynamic_config_path quantization_config'),
    refused(
        LATER,
        """metric_warmup_step early_stop loss_name loss_type ref_model_type full_determinism
        ignore_data_skip auto_find_batch_size test_oom_error acc_steps=1 gpu_memory_fraction
        sequence_parallel_size=1 sequence_parallel acc_strategy=token min_lr
        create_checkpoint_symlink response_prefix""",
    ),
    refused('the loss is a mean over tokens', 'average_tokens_across_devices=true'),
    refused('nothing is held out of a stream: use --val_dataset', 'streaming_val_size'),
    refused('training data is always drawn in a random order', 'dataset_shuffle=true train_dataloader_shuffle=true'),
    refused('held-out data keeps its order', 'val_dataset_shuffle'),
    refused(
        'give --dataset several names and files: a.jsonl#1000 b.jsonl',
        'train_dataset_mix_ratio=0.0 train_dataset_mix_ds=ms-bench',
    ),
    refused('write the number behind the data set: --val_dataset my.jsonl#100', 'val_dataset_sample=-1'),
    refused(
        'say it with --fsdp or --deepspeed', 'deepspeed_config_path fsdp_config fsdp_num=1 zero_hpz_partition_size'
    ),
    refused(SPREAD, 'tp=1 pp=1'),
    refused(OPTIMIZER, 'optim=adamw_torch|adamw_torch_fused optimizer lr_scheduler_kwargs'),
    refused(
        'a token is learned or it is not: --loss_scale says which', 'use_loss_scale loss_scale_config_path=default'
    ),
    refused('every batch is used', 'dataloader_drop_last'),
    refused(
        'losses and checkpoints come every --eval_steps and --save_steps',
        'evaluation_strategy=steps eval_strategy=steps save_strategy=steps eval_on_start',
    ),
    refused('TensorBoard files are in runs/ of the output folder', 'logging_dir'),
    refused('run swiftlite infer --load_dataset_config true on the checkpoint', 'predict_with_generate'),
    refused('run swiftlite export --merge_lora true on the checkpoint', 'merge_lora merge_lora_and_save'),
    refused(
        'name the model with --model_type or --model_id_or_path; --resume_from_checkpoint goes on with a run',
        'ckpt_dir adapters adapter_name_or_path load_args',
    ),
)

# for the commands that run a model
RUN = table(
    ANY,
    ENGINE,
    needless(ONE_ENGINE, 'infer_backend=auto|vllm|pt|lmdeploy|transformers|sglang|swiftlite vllm_use_async_engine'),
    needless('adapters are served whenever there are any', 'vllm_enable_lora'),
    needless('models run on the GPU where there is one', 'device=auto|cuda|cpu|gpu'),
    needless('it is read from the checkpoint', 'sft_type train_type tuner_type'),
    needless(BY_ITSELF, 'merge_device_map vllm_disable_custom_all_reduce vllm_disable_cascade_attn max_batch_size'),
    refused('one reply is drawn at a time', 'num_beams=1'),
    refused('a prompt is never cut: one that is too long is refused', 'max_length=-1 truncation_strategy=delete'),
    refused('give --temperature, --top_k, --top_p and --repetition_penalty', 'overwrite_generation_config'),
    refused('use --gpu_memory_utilization', 'cache_max_entry_count=0.8 lmdeploy_cache_max_entry_count=0.8'),
    refused('use --max_model_len', 'lmdeploy_session_len'),
    refused('the cache has the dtype of the weights', 'quant_policy lmdeploy_quant_policy'),
    refused(TEXT, 'vision_batch_size=1 lmdeploy_vision_batch_size=1 vllm_limit_mm_per_prompt'),
    refused('several GPUs share a model by --tensor_parallel_size', 'vllm_pipeline_parallel_size=1'),
    refused('several GPUs share a model by --tensor_parallel_size', 'vllm_data_parallel_size=1'),
    refused('weights are bf16, fp16 or fp32', 'vllm_quantization'),
)

DATA_ONLY = refused(
    'run swiftlite infer to answer a data set',
    """dataset val_dataset load_dataset_config load_data_args dataset_seed dataset_test_ratio=0.01
    split_dataset_ratio model_name model_author show_dataset_sample=-1 self_cognition_sample train_dataset_sample=-1
    val_dataset_sample custom_train_dataset_path custom_val_dataset_path custom_dataset_info""",
)
CHAT_ONLY = table(
    needless('this is no terminal', 'eval_human stream verbose'),
    refused('run swiftlite infer to write replies to a file', 'save_result result_dir result_path'),
)

# ms-swift's export takes infer's flags: what is about running the model means nothing to a merge
EXPORT = table(
    {name: Known(NO_ENGINE, True) for name in RUN},
    ANY,
    needless(
        NO_ENGINE,
        """seed tensor_parallel_size gpu_memory_utilization max_model_len max_num_seqs max_num_batched_tokens
        enforce_eager tp max_logprobs vllm_max_lora_rank max_lora_rank max_loras vllm_gpu_memory_utilization
        vllm_max_model_len vllm_max_num_seqs vllm_enforce_eager vllm_tensor_parallel_size""",
    ),
    needless(
        NO_TEXT,
        """max_new_tokens do_sample temperature top_k top_p repetition_penalty num_beams stop_words stream
        verbose eval_human save_result result_dir max_length truncation_strategy""",
    ),
    needless('weights are written as the base has them', 'export_size export_device export_legacy_format'),
    needless('it is read from the checkpoint', 'finetuning_type'),
    needless('the merged weights have the dtype of the base model', 'dtype torch_dtype'),
    refused(MERGE_ONLY, 'quantization vllm_quantization'),
    refused('export merges the LoRA in --ckpt_dir', 'lora_modules vllm_lora_modules'),
    refused(
        MERGE_ONLY,
        """quant_bits quant_method=awq quant_n_samples=256 quant_seqlen=2048 max_length=-1 quant_device_map
        quant_output_dir quant_batch_size=1 dataset val_dataset to_peft_format to_ollama ollama_output_dir gguf_file
        to_megatron to_hf to_mcore megatron_output_dir hf_output_dir pp=1 load_dataset_config load_data_args
        dataset_seed dataset_test_ratio=0.01 split_dataset_ratio model_name model_author show_dataset_sample=-1
        self_cognition_sample train_dataset_sample=-1 val_dataset_sample custom_train_dataset_path
        custom_val_dataset_path custom_dataset_info""",
    ),
    refused(UPLOAD, 'commit_message'),
)

DEPLOY = table(
    RUN,
    SERVER,
    DATA_ONLY,
    CHAT_ONLY,
    needless('each request says whether it streams', 'stream'),
    needless('max_tokens of a request counts, else all that the context has left', 'max_new_tokens max_tokens'),
)
APP_UI = table(
    RUN,
    DATA_ONLY,
    CHAT_ONLY,
    needless('replies are always shown while they are written', 'stream'),
    refused('models read text', 'is_multimodal'),
)
BENCH = table(
    RUN,
    refused('measure the model itself, with --model_type or --model_id_or_path', 'ckpt_dir adapters'),
    refused('measure the merged checkpoint itself, with --model_id_or_path', 'merge_lora'),
)
EVAL = table(
    RUN,
    needless('every row and its scores are written', 'save_result stream verbose eval_human'),
    needless('swiftlite measures by itself', 'eval_backend=native'),
    needless(BY_ITSELF, 'eval_nproc deploy_timeout'),
    refused('give the files on --eval_dataset: no data set is downloaded', 'eval_few_shot'),
    refused('use --eval_limit', 'show_dataset_sample=-1 val_dataset_sample=-1'),
    refused('use --eval_output_dir', 'result_dir result_path'),
)

TABLES: dict[str, dict[str, Known]] = {
    'sft': SFT,
    'export': EXPORT,
    'infer': RUN,
    'app-ui': APP_UI,
    'deploy': DEPLOY,
    'eval': EVAL,
    'bench': BENCH,
}


def known_flags(command: str, cls: type[Args]) -> dict[str, Known]:
    """What becomes of each flag of another tool that `cls`, the class of `command`, has no field or alias for."""
    own = {name.lstrip('-').replace('-', '_') for f in fields(cls) for name in (f.name, *f.metadata['aliases'])}
    command = 'sft' if command == 'bench train' else command  # its flags are those of sft
    return {name: row for name, row in TABLES.get(command, {}).items() if name not in own}
