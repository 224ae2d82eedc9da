"""Error codes, types and phrases about the account or the run, with their meaning and source.

Each is quoted from its source or was reported by users; none is guessed.
"""

from __future__ import annotations

from typing import Final

from batchgen.outcomes.error_row import Kind, row
from batchgen.outcomes.error_sources import (
    AZURE_ERRORS,
    BAIDU,
    CRAZYROUTER,
    DASHSCOPE,
    GEMINI,
    LITELLM,
    LTX,
    MINIMAX,
    NEW_API,
    NOVITA,
    ONE_API,
    OPENAI_ERRORS,
    OPENROUTER,
    RUNBLOB,
    TENCENT,
    USERS,
    VIDU,
    VOLCENGINE,
    ZHIPU,
)

MONEY_ROWS: Final = (
    row(
        Kind.MONEY,
        "OpenAI",
        OPENAI_ERRORS,
        names=(
            "insufficient_quota, billing_hard_limit_reached, billing_not_active, "
            "credit_balance_exhausted, organization_spend_limit_exceeded, "
            "project_spend_limit_exceeded, organization_usage_limit_exceeded"
        ),
        phrases=(
            "exceeded your current quota, check your plan and billing details, "
            "billing hard limit, insufficient quota"
        ),
    ),
    row(
        Kind.MONEY,
        "new-api",
        NEW_API,
        names="insufficient_user_quota, pre_consume_token_quota_failed, quota_not_enough",
        phrases=(
            "insufficient user quota, pre consume token quota failed, 预扣费额度失败, "
            "用户额度不足, 令牌额度不足, 额度已用尽, token quota is not enough"
        ),
    ),
    row(
        Kind.MONEY,
        "one-api",
        ONE_API,
        phrases="额度不足, 额度已耗尽, 额度用尽, 额度已用完, 額度不足",
    ),
    row(
        Kind.MONEY,
        "AIHubMix",
        "https://docs.aihubmix.com/en/FAQs/HTTP-Codes",
        phrases="balance is insufficient, recharge your account, 余额不足, 餘額不足, 请充值",
    ),
    row(
        Kind.MONEY,
        "LaoZhang API",
        "https://docs.laozhang.ai/en/faq/balance-insufficient",
        names="insufficient_balance",
        phrases="insufficient balance, balance insufficient",
    ),
    row(
        Kind.MONEY,
        "DeepSeek",
        "https://api-docs.deepseek.com/quick_start/error_codes",
        phrases="insufficient account balance",
    ),
    row(
        Kind.MONEY,
        "LiteLLM",
        LITELLM,
        names="budget_exceeded, ExceededBudget, ExceededTokenBudget",
        phrases=(
            "budget has been exceeded, proxy budget exceeded, exceededbudget, "
            "exceededtokenbudget, has exceeded their budget, max budget limit reached"
        ),
    ),
    row(
        Kind.MONEY,
        "xAI",
        "https://github.com/continuedev/continue/issues/10373",
        phrases=(
            "used all available credits, monthly spending limit, purchase more credits, "
            "raise your spending limit"
        ),
    ),
    row(
        Kind.MONEY,
        "xAI",
        "https://github.com/Wei-Shaw/sub2api/issues/4069",
        phrases="run out of credits",
    ),
    row(
        Kind.MONEY,
        "Google Gemini",
        "https://discuss.ai.google.dev/t/api-update-depleted-prepay-credits-now-return-http-402-instead-of-429/183654",
        phrases="prepayment credits are depleted, credits are depleted",
    ),
    row(
        Kind.MONEY,
        "Google Gemini",
        USERS,
        phrases="monthly spending cap, exceeded its spending cap",
    ),
    row(
        Kind.MONEY,
        "Google Cloud",
        "https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto",
        names="BILLING_DISABLED",
        phrases="requires billing to be enabled",
    ),
    row(
        Kind.MONEY,
        "DashScope",
        DASHSCOPE,
        names="Arrearage, AllocationQuota.FreeTierOnly, BIL.UserArrears",
        phrases=(
            "account is in good standing, user is in arrears, free allocated quota exceeded, "
            "free tier of the model has been exhausted"
        ),
    ),
    row(
        Kind.MONEY,
        "Volcengine Ark",
        VOLCENGINE,
        names="AccountOverdueError, ServiceOverdue, SetLimitExceeded",
        phrases="account has an overdue balance, reached the set inference limit",
    ),
    row(
        Kind.MONEY,
        "Zhipu",
        ZHIPU,
        names="1113, 1309",
        phrases="账户已欠费, 已欠费, 欠费, 余额已用完",
    ),
    row(
        Kind.MONEY,
        "Kling",
        USERS,
        names="1101, 1102",
        phrases="account in arrears, resource pack depleted",
    ),
    row(
        Kind.MONEY,
        "MiniMax",
        MINIMAX,
        names="1008",
    ),
    row(
        Kind.MONEY,
        "Tencent Hunyuan",
        TENCENT,
        names=(
            "ResourceUnavailable.InArrears, ResourceUnavailable.LowBalance, "
            "ResourceInsufficient.ChargeResourceExhaust"
        ),
        phrases="计费资源已耗尽",
    ),
    row(
        Kind.MONEY,
        "Baidu Qianfan",
        BAIDU,
        names="BILLING_INSUFFICIENT_BALANCE, QUOTA_USER_DAILY_FREE",
        phrases="account has insufficient balance",
    ),
    row(
        Kind.MONEY,
        "SiliconFlow",
        "https://github.com/hkgood/OSGKeyboard/issues/43",
        names="30001",
        phrases="account balance is insufficient",
    ),
    row(
        Kind.MONEY,
        "OpenRouter",
        OPENROUTER,
        names="payment_required, openrouter_credits, openrouter_key_limit",
        phrases="insufficient credit, requires more credits, payment required",
    ),
    row(
        Kind.MONEY,
        "Replicate",
        USERS,
        phrases="insufficient credit to run this model, monthly spend limit",
    ),
    row(
        Kind.MONEY,
        "fal",
        "https://wavespeed.ai/blog/ai-guides/fal-ai-user-is-locked-admin-lock-fix/",
        phrases="exhausted balance, user is locked. reason: top up, top up your balance",
    ),
    row(
        Kind.MONEY,
        "Fireworks",
        "https://github.com/pollinations/pollinations/issues/12136",
        phrases="reaching the monthly spending limit, failure to pay past invoices",
    ),
    row(
        Kind.MONEY,
        "DeepInfra",
        "https://github.com/zebbern/no-cost-ai/issues/24",
        phrases="need positive balance",
    ),
    row(
        Kind.MONEY,
        "Together",
        "https://docs.together.ai/docs/error-codes",
        phrases="reached its spending limit, run out of credit",
    ),
    row(
        Kind.MONEY,
        "Hugging Face",
        "https://github.com/huggingface/agents-course/issues/386",
        phrases="exceeded your monthly included credit",
    ),
    row(
        Kind.MONEY,
        "Anthropic",
        "https://github.com/anthropics/anthropic-sdk-typescript/issues/618",
        names="billing_error",
        phrases="credit balance is too low",
    ),
    row(
        Kind.MONEY,
        "Stability",
        "https://github.com/gladiaio/gladia/issues/865",
        phrases="not have enough balance",
    ),
    row(
        Kind.MONEY,
        "Novita",
        NOVITA,
        names="NOT_ENOUGH_BALANCE, BILLING_BALANCE_NOT_ENOUGH",
        phrases="not enough balance",
    ),
    row(
        Kind.MONEY,
        "Vidu",
        VIDU,
        names="CreditInsufficient",
    ),
    row(
        Kind.MONEY,
        "LTX",
        LTX,
        names="insufficient_funds_error",
        phrases="insufficient funds",
    ),
    row(
        Kind.MONEY,
        "Phaseo",
        "https://ai-stats.phaseo.app/models/minimax/minimax-m2-5-2026-02-12/quickstart",
        names="insufficient_funds",
        phrases="wallet balance is too low",
    ),
    row(
        Kind.MONEY,
        "Venice",
        "https://docs.venice.ai/api-reference/error-codes",
        names="API_KEY_DIEM_SPEND_LIMIT_EXCEEDED",
        phrases="spend limit exceeded",
    ),
    row(
        Kind.MONEY,
        "Runblob",
        RUNBLOB,
        names="INSUFFICIENT_CREDITS",
    ),
    row(
        Kind.MONEY,
        "Runway",
        "https://github.com/runwayml/sdk-node/issues/28",
        phrases="not have enough credit",
    ),
    row(
        Kind.MONEY,
        "Higgsfield",
        USERS,
        names="not_enough_credits",
        phrases="not enough credit",
    ),
    row(
        Kind.MONEY,
        "Warp",
        "https://docs.warp.dev/factories/api-and-sdk/troubleshooting/errors/budget-exceeded",
        phrases="monthly spending budget",
    ),
)

ACCESS_ROWS: Final = (
    row(
        Kind.ACCESS,
        "OpenAI",
        OPENAI_ERRORS,
        names="invalid_api_key, unsupported_country_region_territory",
        phrases="incorrect api key provided, must be verified to use the model",
    ),
    row(
        Kind.ACCESS,
        "Crazyrouter",
        CRAZYROUTER,
        names="authentication_error",
    ),
    row(
        Kind.ACCESS,
        "new-api",
        NEW_API,
        names="access_denied",
    ),
    row(
        Kind.ACCESS,
        "Azure OpenAI",
        AZURE_ERRORS,
        phrases="resource has been temporarily blocked",
    ),
    row(
        Kind.ACCESS,
        "Google Gemini",
        GEMINI,
        names="API_KEY_INVALID, PERMISSION_DENIED, UNAUTHENTICATED, SERVICE_DISABLED",
        phrases="api key not valid, user location is not supported",
    ),
    row(
        Kind.ACCESS,
        "DashScope",
        DASHSCOPE,
        names="InvalidApiKey, Model.AccessDenied",
    ),
    row(
        Kind.ACCESS,
        "Volcengine Ark",
        VOLCENGINE,
        names="AuthenticationError, InvalidAccountStatus",
    ),
    row(
        Kind.ACCESS,
        "Zhipu",
        ZHIPU,
        names="1004, 1110, 1111, 1112, 1121, 1220",
        phrases="账号已被锁定, 账户已被锁定",
    ),
    row(
        Kind.ACCESS,
        "MiniMax",
        MINIMAX,
        phrases="token not match group",
    ),
    row(
        Kind.ACCESS,
        "Tencent Hunyuan",
        TENCENT,
        names="AuthFailure, UnauthorizedOperation, IpNotInWhitelist, IpInBlacklist",
    ),
    row(
        Kind.ACCESS,
        "Novita",
        NOVITA,
        names="FAILED_TO_AUTH, MISSING_API_KEY, API_NOT_ALLOWED, BILLING_AUTH_FAILED",
    ),
    row(
        Kind.ACCESS,
        "fal",
        "https://wavespeed.ai/blog/ai-guides/fal-ai-user-is-locked-admin-lock-fix/",
        phrases="user is locked",
    ),
    row(
        Kind.ACCESS,
        "Kimi",
        "https://platform.kimi.com/docs/api/errors",
        names="invalid_authentication_error, incorrect_api_key_error",
    ),
)

STOP_ROWS: Final = (
    row(
        Kind.STOP,
        "new-api",
        NEW_API,
        names="model_price_error, api_not_implemented",
    ),
    row(
        Kind.STOP,
        "OpenAI",
        OPENAI_ERRORS,
        names="unknown_parameter",
    ),
    row(
        Kind.STOP,
        "Google Gemini",
        "https://ai.google.dev/gemini-api/docs/rate-limits",
        names="quota_per_day",
    ),
    row(
        Kind.STOP,
        "DashScope",
        DASHSCOPE,
        phrases="model not exist",
    ),
    row(
        Kind.STOP,
        "Volcengine Ark",
        VOLCENGINE,
        names="ModelNotOpen, InvalidEndpointOrModel, ServiceNotOpen",
    ),
    row(
        Kind.STOP,
        "Zhipu",
        ZHIPU,
        names="1211, 1221, 1222, 1304, 1308, 1310, 1311",
        phrases="今日调用次数限额, 模型不存在",
    ),
    row(
        Kind.STOP,
        "Baidu Qianfan",
        BAIDU,
        names="QUOTA_USER_DAILY_REQUEST",
        phrases="daily request limit reached",
    ),
    row(
        Kind.STOP,
        "SiliconFlow",
        "https://github.com/anyme123/Any-code/issues/1",
        phrases="model does not exist",
    ),
)
