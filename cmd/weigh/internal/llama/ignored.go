package llama

// ignored lists llama-server's flags that do not change memory: how many
// values they take, then their names.
//
// Source: common/arg.cpp@v0.5.0, common_params_parser_init.
const ignored = `
0 --usage --version -cl --cache-list --completion-bash
1 -t --threads
1 -tb --threads-batch
1 -C --cpu-mask
1 -Cr --cpu-range
1 --cpu-strict
1 --prio
1 --poll
1 -Cb --cpu-mask-batch
1 -Crb --cpu-range-batch
1 --cpu-strict-batch
1 --prio-batch
1 --poll-batch
1 -lcs --lookup-cache-static
1 -lcd --lookup-cache-dynamic
1 -n --predict --n-predict
1 --keep
1 -cms --checkpoint-min-step
0 --cache-idle-slots --no-cache-idle-slots
0 --context-shift --no-context-shift
1 -p --prompt
0 --perf --no-perf
1 -f --file
1 -bf --binary-file
0 -e --escape --no-escape
1 -r --reverse-prompt
0 -sp --special
0 --warmup --no-warmup
0 --spm-infill
1 --samplers
1 -s --seed
1 --sampler-seq --sampling-seq
0 --ignore-eos
1 --temp --temperature
1 --top-k
1 --top-p
1 --min-p
1 --top-nsigma --top-n-sigma
1 --xtc-probability
1 --xtc-threshold
1 --typical --typical-p
1 --repeat-last-n
1 --repeat-penalty
1 --presence-penalty
1 --frequency-penalty
1 --dry-multiplier
1 --dry-base
1 --dry-allowed-length
1 --dry-penalty-last-n
1 --dry-sequence-breaker
1 --adaptive-target
1 --adaptive-decay
1 --dynatemp-range
1 --dynatemp-exp
1 --mirostat
1 --mirostat-lr
1 --mirostat-ent
1 -l --logit-bias
1 --grammar
1 --grammar-file
1 -j --json-schema
1 -jf --json-schema-file
1 --rope-scaling
1 --rope-scale
1 --rope-freq-base
1 --rope-freq-scale
1 --yarn-orig-ctx
1 --yarn-ext-factor
1 --yarn-attn-factor
1 --yarn-beta-slow
1 --yarn-beta-fast
1 -dt --defrag-thold
0 -cb --cont-batching -nocb --no-cont-batching
1 -mmu --mmproj-url
1 --image-min-tokens
1 --video-fps
1 --video-timestamp-interval
1 --video-ffmpeg-dir
1 -lzm --lazy-mode
1 --numa
0 --list-devices
0 --check-tensors
2 --control-vector-layer-range
1 -a --alias
1 --tags
1 -mu --model-url
1 -dr --docker-repo
1 -hft --hf-token
1 --embd-normalize
1 --host
1 --port
0 --reuse-port
1 --path
1 --cors-origins
1 --cors-methods
1 --cors-headers
0 --cors-credentials --no-cors-credentials
1 --api-prefix
1 --ui-config --webui-config
1 --ui-config-file --webui-config-file
0 --ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy
1 --tools
1 --tools-runtime
1 --mcp-servers-config
1 --mcp-servers-json
0 -ag --agent -no-ag --no-agent
0 --ui --webui --no-ui --no-webui
1 --api-key
1 --api-key-file
1 --ssl-key-file
1 --ssl-cert-file
1 --chat-template-kwargs
1 -to --timeout
1 --sse-ping-interval
1 --threads-http
0 --cache-prompt --no-cache-prompt
1 --cache-reuse
0 --metrics
0 --props
0 --slots --no-slots
1 --slot-save-path
1 --media-path
1 --models-dir
1 --models-preset
1 --models-max
0 --models-autoload --no-models-autoload
0 --jinja --no-jinja
1 --reasoning-format
1 -rea --reasoning
1 --reasoning-effort
1 --reasoning-budget
1 --reasoning-budget-message
0 --reasoning-preserve --no-reasoning-preserve
1 --chat-template
1 --chat-template-file
0 --skip-chat-parsing --no-skip-chat-parsing
0 --prefill-assistant --no-prefill-assistant
1 -sps --slot-prompt-similarity
0 --lora-init-without-apply
1 --sleep-idle-seconds
0 --log-disable
1 --log-file
0 --log-jsonl --no-log-jsonl
1 --log-prompts-dir
1 --log-colors
0 -v --verbose --log-verbose
0 --offline
1 -lv --verbosity --log-verbosity
0 --log-prefix --no-log-prefix
0 --log-timestamps --no-log-timestamps
1 --spec-draft-threads -td --threads-draft
1 --spec-draft-threads-batch -tbd --threads-batch-draft
1 --spec-draft-cpu-mask -Cd --cpu-mask-draft
1 --spec-draft-cpu-range -Crd --cpu-range-draft
1 --spec-draft-cpu-strict --cpu-strict-draft
1 --spec-draft-prio --prio-draft
1 --spec-draft-poll --poll-draft
1 --spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft
1 --spec-draft-cpu-strict-batch --cpu-strict-batch-draft
1 --spec-draft-prio-batch --prio-batch-draft
1 --spec-draft-poll-batch --poll-batch-draft
1 --spec-draft-n-min
1 --spec-synth-len
1 --spec-synth-rates
1 --spec-draft-p-split --draft-p-split
1 --spec-draft-p-min --draft-p-min
0 --spec-draft-backend-sampling --no-spec-draft-backend-sampling
1 --spec-ngram-mod-n-min
1 --spec-ngram-mod-n-match
1 --spec-ngram-simple-size-n
1 --spec-ngram-simple-min-hits
1 --spec-ngram-map-k-size-n
1 --spec-ngram-map-k-min-hits
1 --spec-ngram-map-k4v-size-n
1 --spec-ngram-map-k4v-min-hits
1 --draft-min --draft-n-min
1 --spec-ngram-size-n
1 --spec-ngram-size-m
1 --spec-ngram-min-hits
`
