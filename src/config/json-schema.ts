import {toJsonSchema} from '@valibot/to-json-schema';
import {settingsSchema} from './schema.ts';

/** JSON Schema (2020-12) of osyw-deploy.yaml for editors. Only the build imports this file. */
export function jsonSchema(): object {
  return {
    ...toJsonSchema(settingsSchema, {errorMode: 'ignore', typeMode: 'input', target: 'draft-2020-12'}),
    title: 'osyw-deploy.yaml',
    description: 'One application that osyw-deploy deploys behind nginx. Durations are a number with a unit: 200ms, 30s, 5m.',
  };
}
