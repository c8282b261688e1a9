/** GET /v1/models and /v1/models/{id}. */
import { basename } from 'node:path';
import { resolveModel, type ServerContext } from './context.ts';
import { randomId } from './request_id.ts';

function modelCard(context: ServerContext, name: string) {
  const { plan, createdS } = context.llm;
  return {
    id: name,
    object: 'model',
    created: createdS,
    owned_by: 'tokenmill',
    // The folder's name only: the path of the machine is nobody's business.
    root: basename(plan.modelPath),
    parent: null,
    max_model_len: plan.maxModelLen,
    permission: [
      {
        id: `modelperm-${randomId()}`,
        object: 'model_permission',
        created: createdS,
        allow_create_engine: false,
        allow_sampling: true,
        allow_logprobs: true,
        allow_search_indices: false,
        allow_view: true,
        allow_fine_tuning: false,
        organization: '*',
        group: null,
        is_blocking: false,
      },
    ],
  };
}

export function listModels(context: ServerContext) {
  return { object: 'list', data: context.llm.plan.servedModelNames.map((name) => modelCard(context, name)) };
}

/** Throws `model_not_found`. */
export function oneModel(context: ServerContext, id: string) {
  return modelCard(context, resolveModel(context, id));
}
