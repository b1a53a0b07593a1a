"""Every key of a LLaMA-Factory SFT recipe: its counterpart, or why there is none. docs/migrate.md shows this table."""

from __future__ import annotations

from foveate.migrate.draft import Row

_OTHER_STAGE = "belongs to another stage than supervised fine-tuning"
_SERVING = "concerns chat, serving or export, not training"
_PREPARED = "nothing is prepared ahead: records are encoded while training"
_LAUNCH = "concerns how processes are started and talk to each other"
_KERNELS = "a choice of kernels; results do not depend on it"
_VIDEO = "how a clip is sampled stands in the records: `fps` or `num_frames` of a video part"
_TOKENS = "the checkpoint's tokenizer is taken as it is, but for new tokens"

ROWS: tuple[Row, ...] = (
    # model
    Row(keys="model_name_or_path", to="model.id"),
    Row(keys="model_revision", to="model.revision"),
    Row(keys="trust_remote_code", to="model.trust_remote_code", why="needs a full commit in model.revision, or a local folder"),
    Row(keys="bf16 fp16 pure_bf16", to="train.precision", why="and model.dtype"),
    Row(keys="torch_dtype", why="LLaMA-Factory goes by bf16 and pure_bf16"),
    Row(keys="flash_attn enable_liger_kernel use_v1_kernels use_unsloth use_unsloth_gc use_fast_tokenizer low_cpu_mem_usage", why=_KERNELS),
    Row(
        keys="tf32 torch_compile* fp16_* bf16_full_eval half_precision_backend use_ipex jit_mode_eval use_liger_kernel liger_kernel_config",
        why=_KERNELS,
    ),
    Row(keys="use_cpu no_cuda use_mps_device", why="train.device chooses, `auto` by default"),
    Row(
        keys="adapter_name_or_path adapter_folder create_new_adapter",
        state="manual",
        why="merge the adapter, and name the merged folder as model.id",
    ),
    Row(keys="cache_dir", state="manual", why="set HF_HOME to the cache's folder"),
    Row(keys="hf_hub_token ms_hub_token om_hub_token", state="manual", why="run `hf auth login`; a token does not belong into a recipe"),
    Row(keys="quantization_bit quantization_type quantization_method double_quantization", to="model.quantize", why="4 and 8 bits"),
    Row(keys="quantization_device_map", why="set by the trainer itself"),
    Row(keys="quantization_*", state="dropped", why="concerns weights that are quantised for serving"),
    Row(keys="add_tokens", to="model.add_tokens"),
    Row(keys="add_special_tokens", to="model.add_special_tokens"),
    Row(keys="resize_vocab", why="embeddings grow where new tokens need it"),
    Row(keys="split_special_tokens new_special_tokens_config init_special_tokens", state="dropped", why=_TOKENS),
    Row(
        keys="rope_scaling shift_attn mixture_of_depths moe_aux_loss_coef train_from_scratch",
        state="dropped",
        why="the model is trained as it is",
    ),
    Row(
        keys="upcast_layernorm upcast_lmhead_output print_param_status offload_folder use_kv_cache compute_dtype device_map "
        "model_max_length block_diag_attn",
        why="set by the trainer itself",
    ),
    Row(
        keys="disable_gradient_checkpointing gradient_checkpointing",
        to="train.gradient_checkpointing",
        why="on by default in LLaMA-Factory",
    ),
    Row(keys="use_reentrant_gc gradient_checkpointing_kwargs* activation_checkpointing* use_cache", why=_KERNELS),
    Row(keys="image_max_pixels image_resolution", to="data.train.*.max_pixels", why="589824 (768 x 768) unless set"),
    Row(keys="image_min_pixels", state="changed", why="tiny images are enlarged only as far as the processor does so"),
    Row(
        keys="image_do_pan_and_scan crop_to_patches",
        state="manual",
        why="settings of the processor: model.processor takes them by their own names",
    ),
    Row(keys="video_max_pixels video_min_pixels video_resolution", state="manual", why="limits on frames are the processor's own"),
    Row(keys="video_fps video_maxlen", state="manual", why=_VIDEO),
    Row(keys="use_audio_in_video", state="dropped", why="a clip's own sound is not read; give it as an audio part"),
    Row(keys="audio_sampling_rate", why="sounds are resampled to what the processor wants"),
    # method
    Row(keys="stage", why="supervised fine-tuning only; other stages are refused"),
    Row(keys="do_train", why="`foveate train` trains"),
    Row(keys="do_eval do_predict", why="`foveate eval` measures"),
    Row(keys="finetuning_type", to="tuning.type"),
    Row(keys="lora_rank", to="tuning.rank"),
    Row(keys="lora_alpha", to="tuning.alpha", why="twice the rank unless set"),
    Row(keys="use_rslora", to="tuning.rslora"),
    Row(keys="use_dora", to="tuning.dora"),
    Row(keys="lora_dropout", to="tuning.dropout"),
    Row(keys="lora_target", to="tuning.targets"),
    Row(keys="additional_target", to="tuning.also_full", why="parts; other modules become tuning.modules_to_save"),
    Row(
        keys="freeze_vision_tower freeze_multi_modal_projector freeze_language_model",
        to="tuning.parts",
        why="vision and projector are frozen unless set",
    ),
    Row(keys="train_mm_proj_only", why="is off by default"),
    Row(keys="pissa_* loraplus_* oft_* module_dropout", state="dropped", why="LoRA only"),
    Row(
        keys="freeze_trainable_layers freeze_trainable_modules freeze_extra_modules use_llama_pro",
        state="dropped",
        why="parts are trained as a whole",
    ),
    Row(keys="use_galore galore_* use_apollo apollo_* use_badam badam_* use_adam_mini use_muon", state="dropped", why="AdamW only"),
    Row(
        keys="use_dft_loss use_asft_loss asft_alpha use_eaft_loss eaft_alpha label_smoothing_factor neftune_noise_alpha",
        state="dropped",
        why="the loss is the mean over all trained tokens of the step",
    ),
    Row(keys="use_mca use_hyper_parallel hyper_parallel_args use_kt kt_* mca_*", state="dropped", why="data parallelism only"),
    Row(keys="pref_* dpo_* kto_* ppo_* simpo_* ref_model* reward_model* ld_alpha", why=_OTHER_STAGE),
    # data
    Row(keys="dataset", to="data.train", why="each name's entry in dataset_info.json"),
    Row(keys="eval_dataset", to="data.eval"),
    Row(keys="dataset_dir", to="data.train.*.path", why="where dataset_info.json is"),
    Row(keys="media_dir", to="data.train.*.media_root"),
    Row(keys="max_samples", to="data.train.*.limit"),
    Row(keys="val_size", to="data.eval", why="as slices"),
    Row(keys="default_system", to="data.train.*.system"),
    Row(keys="cutoff_len", to="batch.max_tokens", why="conversations are set aside, never cut"),
    Row(keys="packing neat_packing", to="batch.pack", why="on by default: it changes speed only"),
    Row(keys="streaming", to="data.train.*.streaming"),
    Row(keys="buffer_size", state="manual", why="shuffle_buffer of a streamed source"),
    Row(keys="template", why="the model's own chat template is used, and every label proven against it; model.chat_template takes another"),
    Row(
        keys="enable_thinking preserve_thinking reasoning_effort",
        switch=False,
        state="changed",
        why="the chat template decides about thinking; model.template_options sets its variables",
    ),
    Row(keys="tool_format", state="changed", why="the chat template decides how tools are written"),
    Row(keys="train_on_prompt", state="dropped", why="only answers are trained"),
    Row(keys="mask_history", state="dropped", why="every answer of a conversation is trained; `train: false` on a turn leaves it out"),
    Row(keys="mix_strategy interleave_probs", state="changed", why="sources are mixed by `weight` or `count`"),
    Row(keys="preprocessing_batch_size preprocessing_num_workers overwrite_cache tokenized_path data_shared_file_system", why=_PREPARED),
    Row(
        keys="ignore_pad_token_for_loss group_by_length length_column_name remove_unused_columns label_names train_sampling_strategy",
        why="padding is never trained, and packing leaves little of it",
    ),
    Row(keys="disable_shuffling", state="dropped", why="records are always shuffled, anew in each epoch"),
    Row(keys="eval_on_each_dataset", state="changed", why="held-out sources are measured together"),
    Row(keys="dataloader_num_workers", to="data.workers"),
    Row(keys="dataloader_*", why="chosen by the loader itself"),
    # steps
    Row(keys="per_device_train_batch_size gradient_accumulation_steps", to="batch.size", why="times --nproc; and batch.micro_size"),
    Row(keys="auto_find_batch_size per_gpu_*", why="batch.max_tokens bounds the memory"),
    Row(keys="num_train_epochs", to="train.epochs", why="3 unless set"),
    Row(keys="max_steps", to="train.steps"),
    Row(keys="seed", to="train.seed", why="42 unless set; the same seed draws another order"),
    Row(keys="data_seed full_determinism", why="every draw follows from train.seed and the step"),
    Row(keys="learning_rate", to="optim.lr"),
    Row(keys="weight_decay", to="optim.weight_decay"),
    Row(keys="adam_beta1 adam_beta2", to="optim.betas"),
    Row(keys="adam_epsilon", to="optim.eps"),
    Row(keys="max_grad_norm", to="optim.max_grad_norm"),
    Row(keys="optim", to="optim.name", why="AdamW, also in 8 bits and paged, Adafactor and SGD"),
    Row(keys="optim_args optim_target_modules", state="dropped", why="settings that AdamW lacks"),
    Row(keys="lr_scheduler_type", to="optim.schedule", why="linear unless set"),
    Row(keys="warmup_ratio warmup_steps", to="optim.warmup", why="and optim.warmup_start: 0"),
    Row(keys="lr_scheduler_kwargs.min_lr lr_scheduler_kwargs.min_lr_rate", to="optim.min_lr"),
    Row(keys="lr_scheduler_kwargs.* lr_scheduler_kwargs", state="dropped", why="there is no such schedule"),
    # output
    Row(keys="output_dir", to="train.output"),
    Row(keys="save_steps save_strategy", to="train.save_every"),
    Row(keys="save_total_limit", to="train.keep", why="2 unless set; transformers keeps all"),
    Row(keys="save_only_model", state="changed", why="checkpoints are always whole, so that a run can be resumed"),
    Row(keys="overwrite_output_dir", state="changed", why="a run's folder is never overwritten; name another train.output"),
    Row(
        keys="resume_from_checkpoint", state="manual", why="another trainer's checkpoint can't be resumed; merge it and name it as model.id"
    ),
    Row(
        keys="ignore_data_skip restore_callback_states_from_checkpoint enable_jit_checkpoint save_safetensors save_on_each_node",
        why="checkpoints are verified and resumed exactly",
    ),
    Row(
        keys="logging_* log_* plot_loss disable_tqdm include_num_input_tokens_seen include_tokens_per_second "
        "include_effective_tokens_per_second "
        "skip_memory_metrics compute_accuracy trackio_* project",
        why="every step is logged, with tokens and rates; the report draws the curves",
    ),
    Row(keys="report_to", to="log"),
    Row(
        keys="run_name", state="manual", why="a run is named by its folder; trackers' projects by WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME"
    ),
    Row(keys="use_swanlab swanlab_*", state="dropped", why="trackers are tensorboard, wandb and mlflow"),
    Row(keys="push_to_hub* hub_*", state="manual", why="`hf upload` takes the run's final folder, a Hugging Face model"),
    # evaluation
    Row(keys="eval_strategy evaluation_strategy eval_steps", to="train.eval_every"),
    Row(keys="per_device_eval_batch_size", to="evaluate.batch_size"),
    Row(keys="predict_with_generate", to="evaluate.metrics"),
    Row(keys="max_new_tokens generation_max_length", to="evaluate.max_new_tokens"),
    Row(keys="load_best_model_at_end metric_for_best_model", to="train.best"),
    Row(keys="greater_is_better", why="known of every metric"),
    Row(keys="early_stopping_steps", state="dropped", why="a run trains its steps; train.best keeps the best checkpoint"),
    Row(keys="eval_on_start", to="evaluate.before"),
    Row(
        keys="eval_accumulation_steps eval_delay eval_do_concat_batches eval_use_gather_object eval_num_beams batch_eval_metrics "
        "include_for_metrics "
        "prediction_loss_only include_inputs_for_metrics past_index generation_num_beams generation_config sortish_sampler",
        why="concerns how transformers evaluates",
    ),
    Row(
        keys="do_sample temperature top_p top_k num_beams repetition_penalty length_penalty skip_special_tokens max_length",
        why="answers are generated greedily",
    ),
    # processes
    Row(keys="deepspeed", to="parallel.strategy", why="ZeRO becomes FSDP2"),
    Row(keys="fsdp", to="parallel.strategy"),
    Row(
        keys="fsdp_config* fsdp_* accelerator_config* parallelism_config*", state="changed", why="FSDP2 wraps the model's blocks by itself"
    ),
    Row(keys="ddp_timeout", to="parallel.timeout_s"),
    Row(
        keys="ddp_* average_tokens_across_devices split_batches local_rank ray_* master_addr master_port placement_strategy "
        "resources_per_worker",
        why=_LAUNCH,
    ),
    Row(keys="use_habana use_lazy_mode gaudi_config_name tpu_* mp_parameters", state="dropped", why="CPU and CUDA only"),
    Row(keys="torch_empty_cache_steps debug enable_torch_profiler profiler_* profile_modules", why="concerns measurements, not results"),
    Row(keys="fp8*", state="dropped", why="there is no float8 training"),
    Row(keys="infer_* vllm_* sglang_* export_* predict_* task task_dir batch_size save_dir lang n_shot", why=_SERVING),
)
