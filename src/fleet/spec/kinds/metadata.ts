/** `metadata` and what else all objects of Kubernetes have. */
import { any, type Field, map, object, optional, required, str, type Type } from '../schema.ts';

/** DNS label or subdomain. */
const OBJECT_NAME = {
  pattern: /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/,
  form: 'a name of small letters, digits, - and .',
};

const objectName = (): Type<string> => str(OBJECT_NAME);

/** Written by the API server; a file that came from `kubectl get` has them. */
const unread = (): Field<null> => ({ type: any(), use: 'optional', doc: 'Of the cluster; not read.' });

const METADATA = object({
  name: required(objectName()),
  namespace: optional(objectName()),
  labels: optional(map(str({ allowEmpty: true }))),
  annotations: optional(map(str({ allowEmpty: true }))),
  generateName: unread(),
  uid: unread(),
  resourceVersion: unread(),
  generation: unread(),
  creationTimestamp: unread(),
  deletionTimestamp: unread(),
  deletionGracePeriodSeconds: unread(),
  managedFields: unread(),
  finalizers: unread(),
  ownerReferences: unread(),
  selfLink: unread(),
});

/** The fields beside `spec`. */
export const OBJECT = {
  apiVersion: required(str()),
  kind: required(str()),
  metadata: required(METADATA),
  status: unread(),
};
