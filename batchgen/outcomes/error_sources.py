"""Public sources of the rows in the table of error codes."""

from __future__ import annotations

from typing import Final

AZURE: Final = "https://learn.microsoft.com/en-us/azure/ai-services/openai/concepts/content-filter"
AZURE_ERRORS: Final = "https://www.developersdigest.tech/errors/api/azure-openai/400-content-filter"
BAIDU: Final = "https://ai.baidu.com/ai-doc/AppBuilder/4m8sgh88y"
CRAZYROUTER: Final = "https://docs.crazyrouter.com/en/error-handling"
DASHSCOPE: Final = "https://help.aliyun.com/en/model-studio/error-code"
GEMINI: Final = "https://ai.google.dev/gemini-api/docs/troubleshooting"
GEMINI_BLOCKED: Final = "https://ai.google.dev/api/generate-content#FinishReason"
LITELLM: Final = "https://docs.litellm.ai/docs/proxy/users"
LTX: Final = "https://docs.ltx.video/errors"
MINIMAX: Final = "https://platform.minimax.io/docs/api-reference/errorcode"
NEW_API: Final = "https://github.com/QuantumNous/new-api/blob/main/types/error.go"
NOVITA: Final = "https://novita.ai/docs/api-reference/basic-error-code"
ONE_API: Final = "https://github.com/songquanpeng/one-api"
OPENAI_ERRORS: Final = "https://platform.openai.com/docs/guides/error-codes"
OPENAI_IMAGES: Final = "https://platform.openai.com/docs/guides/image-generation"
OPENROUTER: Final = "https://openrouter.ai/docs/api/reference/errors-and-debugging"
RUNBLOB: Final = "https://docs.runblob.io/api-reference/nanobanana/errors"
TENCENT: Final = "https://cloud.tencent.com/document/api/1668/88076"
USERS: Final = "reported by users"
VIDU: Final = "https://platform.vidu.com/docs/error-code"
VOLCENGINE: Final = "https://www.volcengine.com/docs/82379/1299023"
ZHIPU: Final = "https://docs.bigmodel.cn/cn/api/api-code"
