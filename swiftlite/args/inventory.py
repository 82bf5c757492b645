"""Which flags other tools have: what the tables of docs/flags.md and their tests go through."""

MODEL = """model_type
model_id_or_path model_revision template_type dtype system use_flash_attn rope_scaling model_kwargs
custom_register_path custom_dataset_info local_repo_path model_cache_dir device_map_config device_map_config_path
device_max_memory hub_token ignore_args_error tools_prompt quant_method quantization_bit hqq_axis
hqq_dynamic_config_path bnb_4bit_comp_dtype bnb_4bit_quant_type bnb_4bit_use_double_quant bnb_4bit_quant_storage
save_safetensors safe_serialization seed sft_type"""

DATA = """dataset val_dataset dataset_seed dataset_test_ratio max_length truncation_strategy check_dataset_strategy
model_name model_author self_cognition_sample train_dataset_sample val_dataset_sample custom_train_dataset_path
custom_val_dataset_path"""

GENERATION = 'max_new_tokens do_sample temperature top_k top_p repetition_penalty num_beams'

INFER = f"""{MODEL} {DATA} {GENERATION} stop_words infer_backend ckpt_dir result_dir load_args_from_ckpt_dir
load_dataset_config eval_human show_dataset_sample save_result stream merge_lora merge_lora_and_save merge_device_map
overwrite_generation_config verbose gpu_memory_utilization tensor_parallel_size max_num_seqs max_model_len
disable_custom_all_reduce enforce_eager limit_mm_per_prompt vllm_enable_lora vllm_max_lora_rank lora_modules
vllm_lora_modules max_logprobs tp cache_max_entry_count quant_policy vision_batch_size"""

SFT = f"""{MODEL} {DATA} {GENERATION} full_determinism freeze_parameters freeze_vit freeze_parameters_ratio
additional_trainable_parameters tuner_backend output_dir add_output_dir_suffix ddp_backend ddp_find_unused_parameters
ddp_broadcast_buffers ddp_timeout resume_from_checkpoint resume_only_model ignore_data_skip packing train_backend tp pp
min_lr sequence_parallel loss_name use_loss_scale loss_scale_config_path streaming streaming_val_size
streaming_buffer_size rescale_image target_modules target_regex modules_to_save lora_rank lora_alpha lora_dropout
lora_bias_trainable lora_dtype lora_lr_ratio use_rslora use_dora init_lora_weights fourier_n_frequency fourier_scaling
boft_block_size boft_block_num boft_n_butterfly_factor boft_dropout vera_rank vera_projection_prng_key vera_dropout
vera_d_initial adapter_act adapter_length use_galore galore_target_modules galore_rank galore_update_proj_gap
galore_scale galore_proj_type galore_optim_per_parameter galore_with_embedding galore_quantization galore_proj_quant
galore_proj_bits galore_proj_group_size galore_cos_threshold galore_gamma_proj galore_queue_size adalora_target_r
adalora_init_r adalora_tinit adalora_tfinal adalora_deltaT adalora_beta1 adalora_beta2 adalora_orth_reg_weight
ia3_feedforward_modules llamapro_num_new_blocks llamapro_num_groups neftune_noise_alpha neftune_backend
lisa_activated_layers lisa_step_interval reft_layer_key reft_layers reft_rank reft_intervention_type reft_args
use_liger gradient_checkpointing vit_use_gc deepspeed batch_size eval_batch_size auto_find_batch_size num_train_epochs
max_steps optim adam_beta1 adam_beta2 adam_epsilon learning_rate weight_decay gradient_accumulation_steps
max_grad_norm predict_with_generate lr_scheduler_type lr_scheduler_kwargs warmup_ratio warmup_steps eval_steps
save_steps save_only_model save_total_limit logging_steps acc_steps dataloader_num_workers dataloader_pin_memory
dataloader_drop_last push_to_hub hub_model_id hub_private_repo hub_strategy test_oom_error disable_tqdm lazy_tokenize
preprocess_num_proc check_model_is_latest logging_dir report_to acc_strategy save_on_each_node evaluation_strategy
save_strategy gpu_memory_fraction include_num_input_tokens_seen fsdp fsdp_config sequence_parallel_size
model_layer_cls_name metric_warmup_step fsdp_num per_device_train_batch_size per_device_eval_batch_size eval_strategy
train_dataset_mix_ratio train_dataset_mix_ds only_save_model neftune_alpha deepspeed_config_path lora_dropout_p
lora_target_modules lora_target_regex lora_modules_to_save boft_target_modules boft_modules_to_save
vera_target_modules vera_modules_to_save ia3_target_modules ia3_modules_to_save push_hub_strategy"""

EXPORT = f"""{INFER} to_peft_format to_ollama ollama_output_dir gguf_file quant_bits quant_n_samples quant_seqlen
quant_device_map quant_output_dir quant_batch_size push_to_hub hub_model_id hub_private_repo commit_message
to_megatron to_hf megatron_output_dir hf_output_dir pp"""

EVAL = """eval_dataset eval_few_shot eval_limit name eval_url eval_token eval_is_chat_model custom_eval_config
eval_use_cache eval_output_dir eval_backend eval_batch_size eval_nproc deploy_timeout"""

# the flags of ms-swift 2.6 by command
MS_SWIFT: dict[str, list[str]] = {
    'sft': SFT.split(),
    'infer': INFER.split(),
    'export': EXPORT.split(),
    'app-ui': [*INFER.split(), 'host', 'port', 'share', 'server_name', 'server_port'],
    'deploy': [
        *INFER.split(),
        *['host', 'port', 'api_key', 'ssl_keyfile', 'ssl_certfile', 'owned_by', 'served_model_name', 'log_interval'],
    ],
    'eval': [*INFER.split(), *EVAL.split()],
}

# further names of ms-swift 3.x and 4.x
LATER_MODEL = """model revision template torch_dtype attn_impl quant_bits use_hf device_map max_memory
bnb_4bit_compute_dtype task_type num_labels problem_type new_special_tokens max_pixels norm_bbox agent_template
external_plugins split_dataset_ratio strict download_mode"""

LATER_RUN = f"""{LATER_MODEL} adapters load_data_args enable_thinking vllm_tensor_parallel_size
vllm_gpu_memory_utilization vllm_max_model_len vllm_max_num_seqs vllm_enforce_eager vllm_enable_prefix_caching
vllm_disable_custom_all_reduce vllm_disable_cascade_attn vllm_limit_mm_per_prompt vllm_pipeline_parallel_size
vllm_data_parallel_size vllm_quantization vllm_use_async_engine max_batch_size lmdeploy_session_len
lmdeploy_cache_max_entry_count lmdeploy_quant_policy lmdeploy_vision_batch_size"""

MS_SWIFT_LATER: dict[str, list[str]] = {
    'sft': f"""{LATER_MODEL} train_type tuner_type add_version load_args columns dataset_num_proc dataset_shuffle
        train_dataloader_shuffle val_dataset_shuffle shuffle_buffer_size interleave_prob cached_dataset packing_cache
        packing_length padding_free loss_scale loss_type lora_bias init_weights lorap_lr_ratio freeze_llm
        freeze_aligner vit_lr aligner_lr vit_gradient_checkpointing trainable_parameters use_liger_kernel
        zero_hpz_partition_size remove_unused_columns dataloader_persistent_workers dataloader_prefetch_factor
        torch_empty_cache_steps logging_first_step average_tokens_across_devices eval_on_start early_stop
        early_stop_interval create_checkpoint_symlink response_prefix optimizer bf16 fp16 group_by_length
        enable_thinking""".split(),
    'infer': LATER_RUN.split(),
    'export': [*LATER_MODEL.split(), 'adapters', 'load_data_args', 'exist_ok', 'to_mcore'],
    'app-ui': LATER_RUN.split(),
    'deploy': LATER_RUN.split(),
}
