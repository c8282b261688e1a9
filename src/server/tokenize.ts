/** POST /tokenize and /detokenize. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { renderMessages } from './chat_messages.ts';
import { resolveModel, type ServerContext } from './context.ts';
import { badValue } from './http_errors.ts';
import { encodeBounded } from './prompt.ts';
import { refuseUnsupported } from './refused.ts';
import { type DetokenizeBody, KNOWN_FIELDS, type TokenizeBody, type TokenizeChatBody } from './schemas.ts';

const isChat = (body: TokenizeBody): body is TokenizeChatBody => 'messages' in body;

export function tokenizeHandler(context: ServerContext) {
  return async (request: FastifyRequest<{ Body: TokenizeBody }>, reply: FastifyReply): Promise<unknown> => {
    const { llm } = context;
    const body = request.body;
    resolveModel(context, body.model);
    context.warnUnknownFields(body, KNOWN_FIELDS.tokenize);
    let text: string;
    let addSpecialTokens: boolean;
    if (isChat(body)) {
      refuseUnsupported(body);
      text = renderMessages(llm, body);
      addSpecialTokens = body.add_special_tokens ?? false;
    } else {
      text = body.prompt as string;
      addSpecialTokens = (body.add_special_tokens as boolean | null | undefined) ?? true;
    }
    const ids = encodeBounded(llm, text, addSpecialTokens);
    return reply.send({
      count: ids.length,
      max_model_len: llm.plan.maxModelLen,
      tokens: [...ids],
      token_strs: body.return_token_strs ? [...ids].map((id) => llm.tokenizer.idToToken(id) ?? '') : null,
    });
  };
}

export function detokenizeHandler(context: ServerContext) {
  return async (request: FastifyRequest<{ Body: DetokenizeBody }>, reply: FastifyReply): Promise<unknown> => {
    const { llm } = context;
    resolveModel(context, request.body.model);
    context.warnUnknownFields(request.body, KNOWN_FIELDS.detokenize);
    const { tokens } = request.body;
    const { vocabSize } = llm.plan;
    const outside = tokens.find((id) => id >= vocabSize);
    if (outside !== undefined)
      throw badValue(`Token id ${outside} is out of vocabulary (size ${vocabSize}).`, 'tokens', outside);
    return reply.send({ prompt: llm.tokenizer.decode(tokens, { skipSpecialTokens: false }) });
  };
}
