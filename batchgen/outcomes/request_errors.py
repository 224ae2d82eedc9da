"""Error codes, types and phrases about one request or a rate limit, with their meaning and source.

Each is quoted from its source or was reported by users; none is guessed.
"""

from __future__ import annotations

from typing import Final

from batchgen.outcomes.error_row import Kind, row
from batchgen.outcomes.error_sources import (
    AZURE,
    BAIDU,
    CRAZYROUTER,
    DASHSCOPE,
    GEMINI,
    GEMINI_BLOCKED,
    LTX,
    MINIMAX,
    NEW_API,
    NOVITA,
    OPENAI_ERRORS,
    OPENAI_IMAGES,
    OPENROUTER,
    RUNBLOB,
    TENCENT,
    USERS,
    VIDU,
    VOLCENGINE,
    ZHIPU,
)

BLOCKED_ROWS: Final = (
    row(
        Kind.BLOCKED,
        "OpenAI",
        OPENAI_IMAGES,
        names=(
            "moderation_blocked, content_policy_violation, safety_violation, "
            "image_content_policy_violation"
        ),
        phrases=(
            "safety system, content policy, content policies, moderation blocked, "
            "safety violation, violate our usage policies"
        ),
    ),
    row(
        Kind.BLOCKED,
        "Crazyrouter",
        CRAZYROUTER,
        names="content_filter",
        phrases="content filter",
    ),
    row(
        Kind.BLOCKED,
        "new-api",
        NEW_API,
        names="sensitive_words_detected, prompt_blocked",
        phrases="sensitive words detected, 敏感词",
    ),
    row(
        Kind.BLOCKED,
        "Azure OpenAI",
        AZURE,
        names="ResponsibleAIPolicyViolation, contentFilter",
        phrases="content management policy, responsibleaipolicyviolation",
    ),
    row(
        Kind.BLOCKED,
        "xAI",
        USERS,
        phrases="rejected by content moderation, content moderation",
    ),
    row(
        Kind.BLOCKED,
        "Google Gemini",
        GEMINI_BLOCKED,
        names=(
            "SAFETY, IMAGE_SAFETY, PROHIBITED_CONTENT, IMAGE_PROHIBITED_CONTENT, BLOCKLIST, "
            "SPII, RECITATION, IMAGE_RECITATION"
        ),
        phrases="prohibited content, safety filter",
    ),
    row(
        Kind.BLOCKED,
        "Google Vertex",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/image/responsible-ai-imagen",
        phrases="responsible ai practice",
    ),
    row(
        Kind.BLOCKED,
        "DashScope",
        DASHSCOPE,
        names="DataInspectionFailed, IPInfringementSuspect",
        phrases="datainspectionfailed, data inspection failed, inappropriate content",
    ),
    row(
        Kind.BLOCKED,
        "Volcengine Ark",
        VOLCENGINE,
        names=(
            "SensitiveContentDetected, InputTextSensitiveContentDetected, "
            "InputImageSensitiveContentDetected, InputVideoSensitiveContentDetected, "
            "InputAudioSensitiveContentDetected, OutputTextSensitiveContentDetected, "
            "OutputImageSensitiveContentDetected, OutputVideoSensitiveContentDetected, "
            "OutputAudioSensitiveContentDetected, InputTextRiskDetection, "
            "InputImageRiskDetection, OutputTextRiskDetection, OutputImageRiskDetection, "
            "PolicyViolation"
        ),
        phrases=(
            "may contain sensitive information, may contain severe violation information, "
            "inputtextsensitivecontentdetected, inputimagesensitivecontentdetected, "
            "outputimagesensitivecontentdetected, outputvideosensitivecontentdetected, 敏感信息"
        ),
    ),
    row(
        Kind.BLOCKED,
        "Zhipu",
        ZHIPU,
        names="1301",
        phrases="不安全或敏感内容, 敏感内容",
    ),
    row(
        Kind.BLOCKED,
        "MiniMax",
        MINIMAX,
        names="1026, 1027",
        phrases="input new sensitive, output new sensitive",
    ),
    row(
        Kind.BLOCKED,
        "Tencent Hunyuan",
        TENCENT,
        names=(
            "OperationDenied.TextIllegalDetected, OperationDenied.ImageIllegalDetected, "
            "FailedOperation.GenerateImageFailed, FailedOperation.ModerationFailed"
        ),
        phrases="审核不通过, 审核未通过, 违法违规, 违规信息, 违规内容",
    ),
    row(
        Kind.BLOCKED,
        "Stability",
        "https://github.com/ZHO-ZHO-ZHO/ComfyUI-StableDiffusion3-API/issues/2",
        names="content_moderation, CONTENT_FILTERED",
        phrases="content moderation system",
    ),
    row(
        Kind.BLOCKED,
        "Stability on Amazon Bedrock",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-stable-image-core-text-image-request-response.html",
        phrases="filter reason: prompt, filter reason: output image, filter reason: input image",
    ),
    row(
        Kind.BLOCKED,
        "Amazon Nova",
        "https://docs.aws.amazon.com/nova/latest/userguide/image-gen-errors.html",
        phrases="blocked by our content filter",
    ),
    row(
        Kind.BLOCKED,
        "LiteLLM",
        "https://docs.litellm.ai/docs/exception_mapping",
        names="ContentPolicyViolationError",
        phrases="contentpolicyviolationerror",
    ),
    row(
        Kind.BLOCKED,
        "Portkey",
        "https://portkey.ai/error-library/content-violation-error-10068",
        names="content_violation_error, content_policy_violation_error",
        phrases="content that is not allowed by our safety system",
    ),
    row(
        Kind.BLOCKED,
        "WaveSpeedAI",
        "https://wavespeed.ai/docs/error-codes",
        names="1200",
        phrases="content contains sensitive information",
    ),
    row(
        Kind.BLOCKED,
        "Runway",
        "https://docs.dev.runwayml.com/errors/task-failures/",
        names="SAFETY.INPUT, SAFETY.OUTPUT",
    ),
    row(
        Kind.BLOCKED,
        "Hailuo",
        "https://huggingface.co/spaces/wuran/hailuo/raw/main/src/api/consts/exceptions.ts",
        phrases="内容由于合规问题已被阻止生成",
    ),
    row(
        Kind.BLOCKED,
        "StepFun",
        "https://platform.stepfun.com/docs/zh/api-reference/error-codes",
        phrases="内容未审核通过",
    ),
    row(
        Kind.BLOCKED,
        "Diffusers",
        "https://github.com/huggingface/diffusers/issues/4906",
        phrases="potential nsfw content",
    ),
    row(
        Kind.BLOCKED,
        "Replicate",
        USERS,
        phrases="flagged as sensitive, nsfw content",
    ),
    row(
        Kind.BLOCKED,
        "fal",
        "https://docs.fal.ai/errors",
        phrases="content policy violation, flagged by a content checker",
    ),
    row(
        Kind.BLOCKED,
        "Black Forest Labs",
        "https://docs.bfl.ai/api_integration/errors",
        names="Request Moderated, Content Moderated",
        phrases="request moderated, content moderated",
    ),
    row(
        Kind.BLOCKED,
        "OpenRouter",
        OPENROUTER,
        names="flagged_input",
        phrases="requires moderation",
    ),
    row(
        Kind.BLOCKED,
        "Ideogram",
        "https://claudskills.com/skills/ideogram-common-errors/SKILL.md",
        phrases="failed the safety check, failed safety check",
    ),
    row(
        Kind.BLOCKED,
        "Novita",
        NOVITA,
        names="ILLEGAL_PROMPT, ILLEGAL_IMAGE_CONTENT",
    ),
    row(
        Kind.BLOCKED,
        "Vidu",
        VIDU,
        names="TaskPromptPolicyViolation, AuditSubmitIllegal, CreationPolicyViolation",
        phrases="prompt policy violation, creation policy violation",
    ),
    row(
        Kind.BLOCKED,
        "LTX",
        LTX,
        names="content_filtered_error",
    ),
    row(
        Kind.BLOCKED,
        "Kimi",
        "https://platform.kimi.com/docs/api/errors",
        phrases="considered high risk",
    ),
    row(
        Kind.BLOCKED,
        "Runblob",
        RUNBLOB,
        names="MODERATION_FAILED",
    ),
    row(
        Kind.BLOCKED,
        "Alibaba Cloud",
        "https://help.aliyun.com/zh/rds/developer-reference/api-rdsai-2025-05-07-errorcodes",
        names="ContentModeration",
    ),
)

THROTTLED_ROWS: Final = (
    row(
        Kind.THROTTLED,
        "OpenAI",
        OPENAI_ERRORS,
        names="rate_limit_exceeded, rate_limit_error, slow_down, server_is_overloaded",
        phrases=(
            "rate limit, rate limited, too many requests, requests per minute, "
            "requests per second, requests per day, requests per min, images per minute, "
            "input images per min, tokens per minute, tokens per min"
        ),
    ),
    row(
        Kind.THROTTLED,
        "new-api",
        NEW_API,
        names="system_cpu_overloaded, system_memory_overloaded",
        phrases="负载已饱和, 请求频率超过限制, 请求过于频繁",
    ),
    row(
        Kind.THROTTLED,
        "Google Gemini",
        GEMINI,
        names="RESOURCE_EXHAUSTED, rateLimitExceeded, userRateLimitExceeded",
        phrases="per minute",
    ),
    row(
        Kind.THROTTLED,
        "DashScope",
        DASHSCOPE,
        names="Throttling, limit_requests",
    ),
    row(
        Kind.THROTTLED,
        "Volcengine Ark",
        VOLCENGINE,
        names=(
            "ServerOverloaded, RequestBurstTooFast, InflightBatchsizeExceeded, "
            "AccountRateLimitExceeded"
        ),
    ),
    row(
        Kind.THROTTLED,
        "Zhipu",
        ZHIPU,
        names="1302, 1303, 1305, 1312",
        phrases="并发数过高, 频率过高, 流量限制, 访问量过大",
    ),
    row(
        Kind.THROTTLED,
        "Tencent Hunyuan",
        TENCENT,
        names="RequestLimitExceeded",
    ),
    row(
        Kind.THROTTLED,
        "Baidu Qianfan",
        BAIDU,
        names="RATE_LIMIT_TOTAL_QPS, RATE_LIMIT_SEARCH_TOTAL_QPS, RATE_LIMIT_SEARCH_QPS",
        phrases="qps limit exceeded, qps request limit reached",
    ),
    row(
        Kind.THROTTLED,
        "Vidu",
        VIDU,
        names="SystemThrottling",
    ),
    row(
        Kind.THROTTLED,
        "Amazon Bedrock",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html",
        names="ThrottlingException",
    ),
)

REFUSED_ROWS: Final = (
    row(
        Kind.REFUSED,
        "new-api",
        NEW_API,
        names="invalid_request, convert_request_failed",
    ),
)
