import assert from 'node:assert/strict';
import {test} from 'node:test';
import {jsonSchema} from '../../../src/config/json-schema.ts';

function at(schema: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((inside, key) => (inside as Record<string, unknown>)[key], schema);
}

test('the JSON Schema names the keys, the required ones and the words of each', () => {
  const schema = jsonSchema();
  assert.deepEqual(at(schema, 'required'), ['app', 'source', 'workers', 'nginx']);
  assert.equal(at(schema, 'additionalProperties'), false);
  assert.deepEqual(at(schema, 'properties', 'workers', 'required'), ['command', 'ports']);
  assert.deepEqual(at(schema, 'properties', 'nginx', 'required'), ['upstream']);
  assert.deepEqual(at(schema, 'properties', 'release', 'properties', 'tree', 'enum'), ['snapshot', 'in_place']);
  assert.equal(at(schema, 'properties', 'check', 'properties', 'interval', 'default'), '100ms');
  assert.match(String(at(schema, 'properties', 'workers', 'properties', 'ports', 'description')), /8811-8830/);
  assert.equal(JSON.stringify(schema).includes('null'), false);
});
