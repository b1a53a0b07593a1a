"""Every key of an Automodel VLM recipe: its counterpart, or why there is none. docs/migrate.md shows this table."""

from __future__ import annotations

from foveate.migrate.draft import Row

_KERNELS = "a choice among NeMo's own kernels; results do not depend on it"
_ONE_LOSS = "the loss is always the mean over all trained tokens of the step, computed where there are labels"
_TRACKERS = "named by the tracker's own variables: WANDB_PROJECT, WANDB_ENTITY, WANDB_RUN_GROUP, WANDB_TAGS, MLFLOW_TRACKING_URI, …"
_MODEL_CONFIG = "the model's configuration is taken as it is; change config.json in a copy of the model's folder"
_NOT_TRAINED_HERE = "Foveate trains the model itself, without such additions"

ROWS: tuple[Row, ...] = (
    # model
    Row(
        keys="model.pretrained_model_name_or_path model.config.pretrained_model_name_or_path model.config.name_or_path model.config",
        to="model.id",
    ),
    Row(keys="model.revision model.config.revision", to="model.revision"),
    Row(keys="model.dtype model.torch_dtype model.config.torch_dtype", to="model.dtype"),
    Row(keys="model.trust_remote_code", to="model.trust_remote_code", why="needs a full commit in model.revision, or a local folder"),
    Row(keys="model._target_ model.config._target_", why="the class follows from the checkpoint"),
    Row(keys="model.attn_implementation", why="attention is exact under every choice; model.attention has its own"),
    Row(keys="model.use_liger_kernel model.use_sdpa_patching model.force_hf model.sdpa_method model.backend.*", why=_KERNELS),
    Row(
        keys="model.text_config.use_cache model.config.use_cache model.text_config.output_hidden_states model.output_hidden_states "
        "model.config.output_hidden_states model.use_cache model.text_config.cp_full_attn_backend",
        why="set by the trainer itself",
    ),
    Row(
        keys="*num_nextn_predict_layers *num_mtp_modules model.drafter_* *mtp_* mtp.*",
        state="dropped",
        why="heads that predict several tokens ahead are not trained",
    ),
    Row(keys="model.load_base_model", why="the weights are always loaded"),
    Row(keys="model.cache_dir checkpoint.model_cache_dir", state="manual", why="set HF_HOME to the cache's folder"),
    Row(keys="model.config.checkpoint_tp_size model.base_model_state_dict_keys", why="concerns NeMo's own way of loading"),
    Row(keys="model.base_activation_checkpointing", to="train.gradient_checkpointing"),
    Row(keys="model.freeze_config.* model.text_config.* model.vision_config.* model.config.* model.*", state="dropped", why=_MODEL_CONFIG),
    # processor
    Row(keys="processor.min_pixels", to="model.min_pixels"),
    Row(keys="processor.max_pixels", to="model.max_pixels"),
    Row(keys="processor.pretrained_model_name_or_path tokenizer.pretrained_model_name_or_path", why="the model's own processor is used"),
    Row(keys="processor._target_ tokenizer._target_", why="the class follows from the checkpoint"),
    Row(keys="*.padding_side *.use_fast", why="does not change what is trained"),
    Row(keys="processor.trust_remote_code tokenizer.trust_remote_code", why="one setting serves model and processor"),
    Row(keys="processor.chat_template tokenizer.chat_template dataset.chat_template", to="model.chat_template"),
    Row(
        keys="processor.fps processor.num_frames processor.min_frames processor.max_frames processor.video_processor.*",
        state="manual",
        why="how a clip is sampled stands in the records: `fps` or `num_frames` of a video part",
    ),
    Row(keys="processor.revision tokenizer.revision", why="model.revision serves both"),
    Row(keys="tokenizer.*", state="dropped", why="the checkpoint's tokenizer is taken as it is"),
    # peft and freezing
    Row(keys="peft.dim", to="tuning.rank"),
    Row(keys="peft.alpha", to="tuning.alpha"),
    Row(keys="peft.dropout", to="tuning.dropout", why="on the adapters' input"),
    Row(keys="peft.target_modules", to="tuning.targets"),
    Row(keys="peft.exclude_modules peft.match_all_linear", to="tuning.parts"),
    Row(keys="peft._target_", to="tuning.type"),
    Row(keys="peft.use_triton peft.use_memory_efficient_lora", why=_KERNELS),
    Row(keys="peft.dropout_position", why="see peft.dropout"),
    Row(keys="peft.lora_A_init peft.lora_a_init", why="adapters start as PEFT draws them: B at zero, so the first step is the same"),
    Row(keys="peft.lora_dtype", why="adapters are held in float32"),
    Row(keys="peft.use_dora", to="tuning.dora"),
    Row(keys="peft.moe_rank_scaling peft.expert_weight_format", state="dropped", why="one rank for all layers"),
    Row(
        keys="freeze_config.freeze_vision_tower freeze_config.freeze_audio_tower freeze_config.freeze_language_model "
        "freeze_config.freeze_embeddings freeze_config.freeze_modules freeze_config.unfreeze_modules",
        to="tuning.parts",
        why="and tuning.freeze",
    ),
    Row(keys="freeze_config.freeze_video_embedder", state="dropped", why="parts are frozen as a whole"),
    # data
    Row(keys="dataset._target_ validation_dataset*._target_ dataloader.dataset._target_", to="data.train.*.use"),
    Row(keys="*dataset*.path_or_dataset *dataset*.dataset_name *dataset*.dataset_names", to="data.train.*.path"),
    Row(keys="*dataset*.split *dataset*.tulu_split *dataset*.magicoder_split", to="data.train.*.split"),
    Row(keys="*dataset*.limit_dataset_samples", to="data.train.*.limit"),
    Row(keys="*dataset*.limit_total", to="data.train.*.count"),
    Row(keys="*dataset*.name", to="data.train.*.name"),
    Row(keys="*dataset*.user_prompt", to="data.train.*.prompt"),
    Row(keys="*dataset*.system_prompt", to="data.train.*.system"),
    Row(keys="*dataset*.audio_column *dataset*.text_column", to="data.train.*.columns"),
    Row(keys="*dataset*.max_turns", state="dropped", why="conversations are never cut; one that is too long is set aside"),
    Row(
        keys="*dataset*.min_audio_duration_seconds *dataset*.max_audio_duration_seconds",
        state="manual",
        why="sounds are not filtered by length; media.max_audio_s refuses long ones, which data.max_bad then counts",
    ),
    Row(keys="*dataset*.drop_empty_text", why="a record without an answer is set aside and counted"),
    Row(keys="*dataset*.sampling_rate", why="sounds are resampled to what the processor wants"),
    Row(keys="*dataset*.truncate", state="changed", why="a conversation is never cut: one longer than batch.max_tokens is set aside"),
    Row(
        keys="*dataset*.inject_fake_images *dataset*.pretokenize *dataset*.shard_data *dataset*.num_proc *dataset*.tokenizer* "
        "*dataset*.processor*",
        why="concerns how Automodel prepares its batches",
    ),
    Row(keys="*dataset*.seed", why="train.seed orders the data"),
    Row(
        keys="*dataset*.num_samples *dataset*.num_images_per_sample *dataset*.image_size *dataset*.responses", why="describes made-up data"
    ),
    Row(keys="dataset.max_length dataset.seq_length", to="batch.max_tokens"),
    Row(keys="validation_dataset*.max_length", why="batch.max_tokens holds for held-out data too"),
    Row(keys="dataset.packing.enabled", to="batch.pack"),
    Row(keys="*dataset*.streaming", state="manual", why="set `streaming: true` on the source if the data is too large to keep"),
    Row(keys="dataloader.num_workers", to="data.workers"),
    Row(keys="validation_dataloader*.num_workers", why="data.workers serves training; evaluation reads ahead by itself"),
    Row(keys="*dataloader*.pin_memory *dataloader*.persistent_workers *dataloader*.prefetch_factor", why="chosen by the loader itself"),
    Row(keys="*dataloader*.collate_fn._target_ *dataloader*.collate_fn", why="one encoder serves every family"),
    Row(keys="*dataloader*._target_", why="there is one loader, which resumes exactly"),
    Row(keys="*dataloader*.drop_last", state="changed", why="no record is left out: the last step is smaller"),
    Row(keys="*dataloader*.shuffle", state="changed", switch=False, why="records are always shuffled, anew in each epoch"),
    Row(keys="*dataloader*.group_by_length", state="changed", why="records are always shuffled, anew in each epoch"),
    Row(keys="*dataloader*.batch_size", why="batch.micro_size holds"),
    Row(keys="dataloader.collate_fn.max_length", to="batch.max_tokens"),
    Row(keys="validation_dataloader*.collate_fn.max_length", why="batch.max_tokens holds for held-out data too"),
    Row(keys="*.drop_overlong", why="a conversation that is too long is set aside by name"),
    Row(keys="*.start_of_response_token", why="labels are proven from the chat template itself"),
    Row(keys="*dataloader*.collate_fn.*", state="dropped", why="a setting of Automodel's own collate function"),
    # packing
    Row(keys="packed_sequence.pack_size packed_sequence.packed_sequence_size dataset.packing.pack_size", to="batch.max_tokens"),
    Row(keys="packed_sequence.max_length", to="batch.max_tokens"),
    Row(keys="packed_sequence.drop_long_samples", why="a conversation that is too long is set aside by name"),
    Row(
        keys="packed_sequence.pretokenize packed_sequence.packing_ratio packed_sequence.balance_media_tokens packed_sequence.max_packs "
        "packed_sequence.collate_max_length packed_sequence.packing_format packed_sequence.attn_implementation "
        "packed_sequence.split_across_pack packed_sequence.packing_strategy dataset.packing.*",
        why="packs are filled step by step; samples in one do not see each other",
    ),
    Row(
        keys="packed_sequence.post_tokenize_hook_fn packed_sequence.label_post_hook_fn",
        state="manual",
        why="no hook between template and labels: put what it adds into model.chat_template, and `train: false` on turns not to be trained",
    ),
    # steps
    Row(keys="step_scheduler.global_batch_size", to="batch.size", why="counts packs in a packed recipe"),
    Row(keys="step_scheduler.local_batch_size step_scheduler.micro_batch_size", to="batch.micro_size"),
    Row(keys="step_scheduler.max_steps", to="train.steps"),
    Row(keys="step_scheduler.num_epochs", to="train.epochs"),
    Row(keys="step_scheduler.ckpt_every_steps", to="train.save_every"),
    Row(keys="step_scheduler.val_every_steps", to="train.eval_every"),
    Row(
        keys="step_scheduler.save_checkpoint_every_epoch",
        state="changed",
        why="checkpoints follow train.save_every, and one is kept at the end",
    ),
    Row(keys="step_scheduler.validate_on_checkpoint", state="changed", why="evaluation follows train.eval_every alone"),
    Row(
        keys="step_scheduler._target_ step_scheduler.log_remote_every_steps step_scheduler.gc_every_steps "
        "step_scheduler.loss_average_window_steps step_scheduler.dp_size",
        why="every step is logged; the rest is the trainer's own affair",
    ),
    Row(keys="step_scheduler.preemption_signal", why="SIGTERM, SIGINT and SIGUSR1 save a checkpoint and stop"),
    Row(
        keys="step_scheduler.start_step step_scheduler.start_epoch",
        state="dropped",
        why="a run starts at its first step, or goes on with --resume",
    ),
    Row(keys="seed rng.seed", to="train.seed", why="the same seed draws another order than Automodel's"),
    Row(keys="rng._target_ rng.ranked rng.deterministic", why="every draw follows from the seed and the step"),
    # optimizer
    Row(keys="optimizer.lr lr_scheduler.max_lr", to="optim.lr"),
    Row(keys="optimizer.betas", to="optim.betas"),
    Row(keys="optimizer.eps", to="optim.eps"),
    Row(keys="optimizer.weight_decay lr_scheduler.start_wd lr_scheduler.end_wd", to="optim.weight_decay", why="not on biases and norms"),
    Row(keys="optimizer._target_", to="optim.name", why="AdamW; with optim.states: bfloat16 for 8 bits and fewer"),
    Row(keys="optimizer.param_group_overrides", state="manual", why="optim.per_part sets rate and decay by part"),
    Row(keys="optimizer.amsgrad", state="dropped", why="plain AdamW only"),
    Row(
        keys="optimizer.foreach optimizer.fused optimizer.adam_w_mode optimizer.bias_correction optimizer.master_weights "
        "optimizer.master_weight_dtype optimizer.master_weight_bits optimizer.store_param_remainders optimizer.exp_avg_dtype "
        "optimizer.exp_avg_sq_dtype optimizer.capturable optimizer.use_decoupled_grad",
        why="concerns how the same update is computed and held",
    ),
    Row(keys="optimizer.min_lr", why="Automodel does not read it here; see lr_scheduler.min_lr"),
    Row(keys="optimizer.*", state="dropped", why="a setting that AdamW lacks"),
    Row(keys="lr_scheduler.lr_warmup_steps", to="optim.warmup"),
    Row(keys="lr_scheduler.init_lr", to="optim.warmup_start", why="as a share of the peak"),
    Row(keys="lr_scheduler.lr_decay_style", to="optim.schedule", why="cosine, linear and constant"),
    Row(keys="lr_scheduler.min_lr", to="optim.min_lr", why="as a share of the peak"),
    Row(keys="lr_scheduler.lr_decay_steps", why="the rate falls until the last step"),
    Row(
        keys="lr_scheduler._target_ lr_scheduler.use_checkpoint_opt_param_scheduler lr_scheduler.override_opt_param_scheduler",
        why="a resumed run keeps its schedule",
    ),
    Row(keys="lr_scheduler.wd_incr_steps lr_scheduler.wd_incr_style", state="changed", why="weight decay does not change during training"),
    Row(keys="lr_scheduler.*", state="dropped", why="there is no such schedule"),
    Row(keys="clip_grad_norm.max_norm", to="optim.max_grad_norm"),
    Row(keys="clip_grad_norm.*", why=_KERNELS),
    # loss
    Row(keys="loss_fn.coordinate_weight loss_fn.class_token_start_idx loss_fn.num_heads", state="dropped", why=_ONE_LOSS),
    Row(keys="loss_fn.*", why=_ONE_LOSS),
    # checkpoints
    Row(keys="checkpoint.enabled", to="train.save_every", why="the last checkpoint is always kept"),
    Row(keys="checkpoint.checkpoint_dir", to="train.output", why="the run's folder, with its report and logs"),
    Row(keys="checkpoint.max_recent_checkpoints", to="train.keep", why="2 unless set; Automodel keeps all"),
    Row(keys="checkpoint.best_metric_key", state="manual", why="`train.best: loss` keeps the best checkpoint and exports it"),
    Row(
        keys="checkpoint.restore_from",
        state="manual",
        why="another trainer's checkpoint can't be resumed; merge it and name it as model.id",
    ),
    Row(
        keys="checkpoint.model_save_format checkpoint.save_consolidated checkpoint.is_async checkpoint.wait_for_staging "
        "checkpoint.staging_dir "
        "checkpoint.single_rank_consolidation checkpoint.cpu_offload checkpoint.consolidation_timeout_minutes checkpoint.v4_compatible "
        "checkpoint.diffusers_compatible checkpoint.legacy_paramwrapper_layout checkpoint.model_repo_id checkpoint.is_peft "
        "checkpoint.allow_legacy_pickle_restore checkpoint.original_model_root_dir checkpoint.load_base_model "
        "checkpoint.skip_task_head_prefixes_for_base_model checkpoint.model_state_dict_keys checkpoint._target_",
        why="checkpoints are verified safetensors, the final model is a Hugging Face folder",
    ),
    Row(keys="checkpoint.dequantize_base_checkpoint", why="weights are loaded as transformers loads them"),
    # processes
    Row(keys="distributed.strategy distributed._target_ distributed_config._target_", to="parallel.strategy"),
    Row(keys="dist_env.timeout_minutes", to="parallel.timeout_s"),
    Row(keys="dist_env.*", why="chosen by the device"),
    Row(keys="distributed.dp_size distributed_config.dp_size", why="as many processes as `foveate train --nproc N` starts"),
    Row(
        keys="distributed.tp_size distributed.cp_size distributed.pp_size distributed.ep_size distributed.dp_replicate_size "
        "distributed_config.tp_size distributed_config.cp_size distributed_config.pp_size distributed_config.ep_size "
        "distributed_config.dp_replicate_size",
        state="dropped",
        why="data parallelism only",
    ),
    Row(
        keys="distributed.activation_checkpointing distributed_config.activation_checkpointing moe_config.activation_checkpointing "
        "activation_checkpointing",
        to="train.gradient_checkpointing",
    ),
    Row(keys="distributed.moe.* distributed.moe moe_config.* parallelizer.* moe_metrics.*", why="belongs to expert parallelism"),
    Row(keys="*.mp_policy.param_dtype *.autocast_dtype", to="train.precision"),
    Row(keys="*.mp_policy.* *.mp_policy", why="gradients are summed in float32"),
    Row(keys="*.offload_policy*", state="dropped", why="weights and optimizer state stay on the device"),
    Row(keys="*.sequence_parallel *.tp_plan *.use_hf_tp_plan", why="belongs to tensor parallelism"),
    Row(keys="distributed.pipeline.* distributed.pipeline autopipeline.* distributed.pp_batch_size", why="belongs to pipeline parallelism"),
    Row(
        keys="distributed.multimodal.* distributed.frozen_multimodal_sharding distributed.cp_vision_frame_sharding.*",
        why="belongs to context parallelism and NeMo's own sharding",
    ),
    Row(keys="distributed.* distributed_config.*", why="concerns how the same sums are computed across processes"),
    # logs and the rest
    Row(keys="wandb.enable mlflow.enable logger.enable", to="log"),
    Row(
        keys="wandb.dir wandb.save_dir wandb.mode wandb.resume wandb.notes logger.wandb_save_dir mlflow.resume mlflow.flatten_depth",
        why="kept in the run's folder",
    ),
    Row(keys="wandb.* logger.* mlflow.*", state="manual", why=_TRACKERS),
    Row(keys="comet.* comet", state="dropped", why="trackers are tensorboard, wandb and mlflow"),
    Row(keys="recipe recipe._target_ recipe.*", why="names Automodel's own class"),
    Row(keys="ci.* ci", why="settings of the project's own tests"),
    Row(keys="benchmark.* profiling.* nsys.* mfu.* prewarm.* embedding_row_repair.*", why="concerns measurements, not results"),
    Row(keys="compile.*", why="changes speed, not results"),
    Row(
        keys="quantization.load_in_4bit quantization.load_in_8bit quantization.bnb_4bit_quant_type "
        "quantization.bnb_4bit_use_double_quant",
        to="model.quantize",
    ),
    Row(
        keys="quantization.bnb_4bit_compute_dtype quantization.bnb_4bit_quant_storage quantization._target_",
        why="set by the trainer itself",
    ),
    Row(
        keys="quantization.* fp8.* qat.*",
        state="dropped",
        why="weights are held in float32, bfloat16 or float16",
    ),
    Row(
        keys="teacher_* separate_meshes kd_* temperature offload_teacher_model neftune.* ema.* domain_mixture.* drafter.* magi.*",
        state="dropped",
        why=_NOT_TRAINED_HERE,
    ),
    Row(
        keys="slurm.* skypilot.* kubernetes.* launcher.*",
        state="manual",
        why="says where to run: start `foveate train` from your own job script",
    ),
)
