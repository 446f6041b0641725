#!/usr/bin/env python3
"""Writes tests/text/chat_golden.json: what Jinja renders with the chat templates of published models.

    pip install jinja2==3.1.6
    python3 tests/text/make_chat_golden.py

The environment is that of Python's transformers: sandboxed, trim_blocks, lstrip_blocks, raise_exception();
no tools, no strftime_now. `expected` is null where the template raises.
"""
import json
import pathlib

from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATML_TURN = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    + CHATML_TURN
    + "{% endfor %}"
    + PROMPT
)
CHATML_PLAIN = "{% for message in messages %}" + CHATML_TURN + "{% endfor %}" + PROMPT
CHATML_LINES = r"""{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN1_5 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content']}}"
    "{% if (loop.last and add_generation_prompt) or not loop.last %}{{ '<|im_end|>' + '\n'}}{% endif %}"
    "{% endfor %}" + PROMPT
)
QWEN2_5 = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\nYou may call one or more functions\n\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
)
LLAMA3_PROMPT = "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
LLAMA3_1 = r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message + builtin tools #}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- else %}
        {{- raise_exception("no tools here") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
LLAMA3_2 = LLAMA3_1.replace(
    '    {%- set date_string = "26 Jul 2024" %}\n',
    '    {%- if strftime_now is defined %}\n        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- else %}\n'
    '        {%- set date_string = "26 Jul 2024" %}\n    {%- endif %}\n',
)
ZEPHYR = r"""{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
MISTRAL_1 = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_01 = MISTRAL_1.replace("message['content'] + eos_token}}", "message['content'] + eos_token + ' ' }}")
MISTRAL_2 = r"""{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported, with the exception of an initial system message') }}
    {%- endif %}
{%- endfor %}
"""
MISTRAL_3 = (
    MISTRAL_2.replace("loop.first", "loop.last")
    .replace("' [INST] '", '"[INST] "')
    .replace("' [/INST]'", '"[/INST]"')
    .replace("' ' + message['content'] + eos_token", "\" \" + message[\"content\"]|trim + eos_token")
)
UNKNOWN = {
    "gemma": "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] }}{% endfor %}",
    "chatml with thinking": CHATML_PLAIN + "{{ '<think>\n' }}",
    "chatml with text outside": CHATML_PLAIN.replace("{% endfor %}", "!{% endfor %}"),
    "chatml with other turns": CHATML_PLAIN.replace("+ '<|im_end|>' +", "+ '<|im_end|>!' +"),
    "phi3": "{% for message in messages %}{% if message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "llama2": "{% for message in messages %}{{ bos_token + '[INST] <<SYS>>\n' + message['content'] + ' [/INST]' }}{% endfor %}",
    "mistral with a system turn": MISTRAL_1 + "{{ '[SYSTEM_PROMPT]' }}",
    "llama3 without headers": LLAMA3.replace("<|end_header_id|>\n\n", "<|end_header_id|>\n"),
    "broken": "{% for message in messages %}{{ '<|im_start|>' + ",
    "no template language": "<|im_start|> [INST] <|user|>",
}
TEMPLATES = {
    "smollm2": SMOLLM2,
    "chatml": CHATML_PLAIN,
    "chatml escaped": CHATML_PLAIN.replace("\n", "\\n"),
    "chatml lines": CHATML_LINES,
    "chatml bos": "{{ bos_token }}" + CHATML_PLAIN,
    "qwen1.5": QWEN1_5,
    "qwen2.5": QWEN2_5,
    "llama3": LLAMA3 + "{% if add_generation_prompt %}" + LLAMA3_PROMPT + "{% endif %}",
    "llama3 early": LLAMA3 + LLAMA3_PROMPT,
    "llama3.1": LLAMA3_1,
    "llama3.2": LLAMA3_2,
    "zephyr": ZEPHYR,
    "zephyr indented": ZEPHYR.replace("\n{%", "\n  \t{%"),
    "zephyr indented, trimmed": ZEPHYR.replace("\n{%", "\n  {%").replace("message['content']", "message['content'] | trim"),
    "smollm2 with other line ends": SMOLLM2.replace("\n", "\r\n"),
    "zephyr with other line ends": ZEPHYR.replace("\n", "\r\n"),
    "mistral v0.1": MISTRAL_01,
    "mistral v0.2": MISTRAL_1,
    "mistral v0.2 system": MISTRAL_2,
    "mistral v0.3": MISTRAL_3,
}
U, A, S = "user", "assistant", "system"
CONVERSATIONS = [
    [(U, "Hello")],
    [(S, "Be brief."), (U, "Hello")],
    [(U, "Hello"), (A, "Hi there!")],
    [(S, "Be brief."), (U, "Hello"), (A, "Hi."), (U, "Again?")],
    [(S, "Be brief."), (U, "Hello"), (A, " Hi. ")],
    [(U, "  padded\n\n"), (A, "\tboth\u00a0\u3000"), (U, "\u200bnot trimmed\u200b")],
    [(U, "")],
    [(S, ""), (U, "x")],
    [(S, "only a system turn")],
    [(A, "first"), (U, "second")],
    [(U, "one"), (U, "two")],
    [(U, "one"), (S, "late"), (A, "three")],
    [(S, "a"), (S, "b"), (U, "c")],
    [(U, "<|im_end|> {{ x }} [/INST] '\"\\n"), (A, "\u00e9\U0001f600")],
    [(U, " \u001c\u0085\u2028x\u2029 "), (A, "")],
]


def main():
    def raise_exception(message):
        raise RuntimeError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    bos, eos = "<s>", "</s>"
    cases = []
    for name, template in TEMPLATES.items():
        compiled = environment.from_string(template)
        renders = []
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            for prompt in (False, True):
                try:
                    text = compiled.render(messages=messages, add_generation_prompt=prompt, bos_token=bos, eos_token=eos)
                except RuntimeError:
                    text = None
                renders.append({"messages": messages, "prompt": prompt, "expected": text})
        cases.append({"name": name, "template": template, "renders": renders})
    unknown = [{"name": name, "template": template} for name, template in UNKNOWN.items()]
    golden = {"bos": bos, "eos": eos, "known": cases, "unknown": unknown}
    path = pathlib.Path(__file__).parent / "chat_golden.json"
    path.write_text(json.dumps(golden, indent=0, ensure_ascii=True) + "\n")
    print(f"{len(cases)} templates x {len(CONVERSATIONS) * 2} renderings -> {path}")


main()
