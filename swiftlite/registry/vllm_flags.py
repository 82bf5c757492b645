"""What becomes of vLLM's options (0.24, and common ones of earlier releases) that are no fields of swiftlite's."""

from swiftlite.registry.known_flags import Known, needless, refused, table

BY_ITSELF = 'swiftlite chooses by itself'
ONE_ENGINE = "there is one engine, swiftlite's own"
LATER = 'this version has no such feature'
NO_CODE = 'no code is loaded from outside'
TEXT = 'models read and write text only'
PARALLEL = 'several GPUs share a model by tensor_parallel_size'
MEMORY = 'weights and cache stay on the device: see gpu_memory_utilization and num_gpu_blocks_override'
CONFIG = "the model is the one that its checkpoint's config describes"
LOGS = "the server's log is set by verbose and log_interval"
CACHE = 'set the environment variable HF_HOME or MODELSCOPE_CACHE instead'

# options of the engine: flags of infer, app-ui, deploy, eval and bench, and keyword arguments of LLM(...)
ENGINE: dict[str, Known] = table(
    needless(
        BY_ITSELF,
        """disable_custom_all_reduce disable_cascade_attn attention_backend attention_config kernel_config
        linear_backend moe_backend ir_op_priority enable_flashinfer_autotune async_scheduling max_num_partial_prefills
        max_long_partial_prefills long_prefill_token_threshold prefill_schedule_interval scheduler_reserve_full_isl
        watermark cudagraph_capture_sizes max_cudagraph_capture_size prefix_caching_hash_algo
        fully_sharded_loras specialize_active_lora max_parallel_loading_workers safetensors_load_strategy
        safetensors_prefetch_num_threads safetensors_prefetch_block_size use_tqdm_on_load pt_load_map_location
        optimization_level performance_mode disable_hybrid_kv_cache_manager enable_cumem_allocator numa_bind
        numa_bind_nodes numa_bind_cpus renderer_num_workers use_v2_block_manager max_seq_len_to_capture
        max_context_len_to_capture num_scheduler_steps multi_step_stream_outputs disable_async_output_proc
        scheduler_delay_factor num_lookahead_slots disable_nccl_for_dp_synchronization distributed_timeout_seconds
        cpu_distributed_timeout_seconds kv_sharing_fast_prefill gdn_prefill_backend dcp_comm_backend
        dcp_kv_cache_interleave_size cp_kv_cache_interleave_size dbo_decode_token_threshold
        dbo_prefill_token_threshold tokenizer_pool_size tokenizer_pool_type tokenizer_pool_extra_config
        lora_extra_vocab_size ignore_patterns""",
    ),
    needless(NO_CODE, 'trust_remote_code code_revision'),
    needless('nothing is compiled at the start', 'compilation_config'),
    needless('nothing is swapped: a preempted request is computed again', 'swap_space preemption_mode'),
    needless('prompts are always read in chunks', 'enable_chunked_prefill disable_chunked_mm_input'),
    needless(
        ONE_ENGINE,
        """worker_use_ray engine_use_ray distributed_executor_backend ray_workers_use_nsight worker_cls=auto
        model_impl=auto|vllm runner=auto|generate task=auto|generate convert=auto|none""",
    ),
    needless('structured output is held to by llguidance', 'structured_outputs_config guided_decoding_backend'),
    needless('there is one way to load a tokenizer', 'tokenizer_mode=auto|hf|fast config_format=auto|hf'),
    needless('models have no such layers', 'mamba_config mamba_backend mamba_block_size mamba_cache_dtype'),
    needless(
        'models have no such layers',
        """mamba_cache_mode mamba_ssm_cache_dtype mamba_cache_philox_rounds enable_mamba_cache_stochastic_rounding
        language_model_only skip_mm_profiling""",
    ),
    needless(
        'what is measured is on /metrics',
        """disable_log_stats aggregate_engine_logging kv_cache_metrics kv_cache_metrics_sample cudagraph_metrics
        enable_mfu_metrics enable_logging_iteration_details jit_monitor_verbose show_hidden_metrics_for_version
        enable_layerwise_nvtx_tracing collect_detailed_traces enable_mm_processor_stats""",
    ),
    needless('every option is always checked', 'fail_on_environ_validation'),
    needless('weights are read as the checkpoint says', 'allow_deprecated_quantization'),
    refused('weights are bf16, fp16 or fp32', 'quantization quantization_config'),
    refused("factors of an fp8 cache are the checkpoint's, else 1", 'calculate_kv_scales'),
    refused('the caches of all layers have one dtype', 'kv_cache_dtype_skip_layers'),
    refused(
        PARALLEL,
        """pipeline_parallel_size=1 data_parallel_size=1 data_parallel_rank data_parallel_start_rank
        data_parallel_size_local data_parallel_address data_parallel_rpc_port data_parallel_backend=mp
        data_parallel_hybrid_lb data_parallel_external_lb data_parallel_multi_port_external_lb enable_expert_parallel
        enable_ep_weight_filter all2all_backend enable_elastic_ep enable_dbo ubatch_size enable_eplb eplb_config
        expert_placement_strategy prefill_context_parallel_size=1 decode_context_parallel_size=1 nnodes=1 node_rank
        master_addr=127.0.0.1 master_port=29501 sequence_parallel_size=1""",
    ),
    refused('set the environment variable CUDA_VISIBLE_DEVICES instead', 'device_ids'),
    refused(
        MEMORY,
        """cpu_offload_gb=0.0 cpu_offload_params offload_backend=auto offload_group_size offload_num_in_group=1
        offload_prefetch_step=1 offload_params kv_offloading_size kv_offloading_backend kv_cache_memory_bytes""",
    ),
    refused(
        'tokens are not guessed ahead',
        """speculative_config speculative_model num_speculative_tokens spec_method spec_model spec_tokens
        speculative_draft_tensor_parallel_size speculative_max_model_len ngram_prompt_lookup_max
        ngram_prompt_lookup_min""",
    ),
    refused(
        TEXT,
        """limit_mm_per_prompt enable_mm_embeds interleave_mm_strings media_io_kwargs mm_processor_kwargs
        mm_processor_cache_gb=4 mm_processor_cache_type mm_shm_cache_max_object_size_mb=128 mm_encoder_only
        mm_encoder_tp_mode=weights mm_encoder_attn_backend mm_encoder_attn_dtype mm_encoder_fp8_scale_path
        mm_encoder_fp8_scale_save_path mm_encoder_fp8_scale_save_margin video_pruning_rate mm_tensor_ipc
        allowed_local_media_path allowed_media_domains default_mm_loras enable_tower_connector_lora
        disable_mm_preprocessor_cache io_processor_plugin pooler_config override_pooler_config diffusion_config
        enable_prompt_embeds""",
    ),
    refused(CONFIG, 'hf_overrides hf_config_path rope_scaling rope_theta disable_sliding_window additional_config'),
    refused(CONFIG, 'override_attention_dtype model_loader_extra_config override_neuron_config model_weights'),
    refused(CACHE, 'download_dir'),
    refused('set the environment variable HF_TOKEN instead', 'hf_token'),
    refused('revision stands for weights and tokenizer', 'tokenizer_revision=main'),
    refused('adapters have the dtype of the model', 'lora_dtype=auto'),
    refused('an adapter says itself which layers it changes', 'enable_mixed_moe_lora_format lora_target_modules'),
    needless(
        'only a server has names for its model and waits when it is stopped', 'served_model_name shutdown_timeout'
    ),
    refused('prompt adapters', 'enable_prompt_adapter max_prompt_adapters=1 max_prompt_adapter_token'),
    refused('long-context adapters', 'long_lora_scaling_factors'),
    refused(NO_CODE, 'logits_processors logits_processor_pattern worker_extension_cls scheduler_cls'),
    refused('requests are answered in the order they come', 'scheduling_policy=fcfs'),
    refused('logprobs are those of the model before sampling', 'logprobs_mode=raw_logprobs'),
    refused("sampling defaults are the checkpoint's", 'generation_config=auto override_generation_config'),
    refused('the engine does not sleep: stop it instead', 'enable_sleep_mode'),
    refused('what is thought is part of the answer', 'reasoning_parser reasoning_parser_plugin reasoning_config'),
    refused('what is thought is part of the answer', 'enable_reasoning'),
    refused('sampling computes in fp32', 'use_fp64_gumbel'),
    refused('every token is sent when it is there', 'stream_interval=1'),
    refused(LATER, 'kv_transfer_config kv_events_config ec_transfer_config weight_transfer_config profiler_config'),
    refused(LATER, 'otlp_traces_endpoint enable_return_routed_experts tokens_only'),
)

# options of the OpenAI server alone
SERVER: dict[str, Known] = table(
    needless('use --log_interval 0', 'disable_log_stats'),
    needless(
        LOGS,
        """disable_log_requests enable_log_requests disable_uvicorn_access_log uvicorn_log_level
        disable_access_log_for_endpoints max_log_len enable_log_deltas log_error_stack""",
    ),
    needless(
        'tool calls are read from replies in the format of the template whenever tools are given',
        'enable_auto_tool_choice tool_call_parser',
    ),
    needless(BY_ITSELF, 'disable_frontend_multiprocessing h11_max_incomplete_event_size h11_max_header_count'),
    needless('messages may hold texts and parts alike', 'chat_template_content_format=auto|string|openai'),
    needless('models have no such layers', 'enable_flash_late_interaction'),
    needless('tools are left out of the prompt with tool_choice none', 'exclude_tools_when_tool_choice_none'),
    needless('usage always tells the cached tokens', 'enable_prompt_tokens_details'),
    needless('what runs and waits is on /metrics', 'enable_server_load_tracking'),
    refused(NO_CODE, 'tool_parser_plugin middleware tool_server'),
    refused(
        'a template comes from the model or from the command line, never from a request', 'trust_request_chat_template'
    ),
    refused('use --system and --enable_thinking', 'default_chat_template_kwargs'),
    refused('replies have the role assistant', 'response_role=assistant'),
    refused('a request asks for it with the field of this name', 'return_tokens_as_token_ids'),
    refused('a request asks for it with stream_options', 'enable_force_include_usage'),
    refused('texts are not logged', 'enable_log_outputs log_config_file'),
    refused('serve behind a proxy for it', 'uds root_path ssl_ca_certs enable_ssl_refresh ssl_cert_reqs'),
    refused('serve behind a proxy for it', 'ssl_ciphers enable_request_id_headers disable_fastapi_docs'),
    refused('serve behind a proxy for it', 'enable_offline_docs allow_credentials allowed_origins=["*"]|*'),
    refused('serve behind a proxy for it', 'allowed_methods=["*"]|* allowed_headers=["*"]|*'),
    refused(LATER, 'enable_tokenizer_info_endpoint prompt_adapters'),
    refused(LATER, 'fingerprint_mode=full fingerprint_value grpc headless'),
    refused('one web process serves one engine', 'api_server_count=1 data_parallel_supervisor_port'),
    refused('one web process serves one engine', 'dp_supervisor_probe_interval_s dp_supervisor_probe_timeout_s'),
    refused('one web process serves one engine', 'dp_supervisor_probe_failure_threshold'),
    refused('a server speaks text: skip_tokenizer_init is an option of LLM(...) only', 'skip_tokenizer_init'),
)

# vLLM's one-letter spellings of these
SHORT: dict[str, str] = {
    '-q': 'quantization',
    '-pp': 'pipeline_parallel_size',
    '-dp': 'data_parallel_size',
    '-dpr': 'data_parallel_rank',
    '-dpl': 'data_parallel_size_local',
    '-dpa': 'data_parallel_address',
    '-dpp': 'data_parallel_rpc_port',
    '-dpb': 'data_parallel_backend',
    '-pcp': 'prefill_context_parallel_size',
    '-dcp': 'decode_context_parallel_size',
    '-ep': 'enable_expert_parallel',
    '-n': 'nnodes',
    '-r': 'node_rank',
    '-sc': 'speculative_config',
    '-cc': 'compilation_config',
    '-ac': 'attention_config',
    **dict.fromkeys(('-O', '-O0', '-O1', '-O2', '-O3'), 'optimization_level'),
}
