import assert from 'node:assert/strict';
import {appendFileSync, existsSync, linkSync, readFileSync, readdirSync, symlinkSync, unlinkSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:net';
import {join} from 'node:path';
import {test, type TestContext} from 'node:test';
import type {Config} from '../../../src/config/config.ts';
import {parseConfig} from '../../../src/config/load-config.ts';
import {DeployError} from '../../../src/errors.ts';
import {putUpstreamBack, restoreUpstream, switchUpstream, writeUpstreamAhead, type SwitchIntent, type SwitchSteps} from '../../../src/upstream/switch-upstream.ts';
import {changeFile} from '../../../src/upstream/upstream-file.ts';
import {leasePorts} from '../../support/free-ports.ts';
import {NGINX, startNginx, type NginxRig} from '../../support/nginx-rig.ts';
import {makeTempDir, removeTempDir} from '../../support/temp-dir.ts';

// What a switch does where somebody else writes the same file between two of its steps, with a real nginx.

const BLOCK = '    upstream myweb { # ours\n        server 127.0.0.1:40001 weight=2;\n        server 127.0.0.1:40002;\n    }\n';
const PORTS = [40_011, 40_012];
const FOREIGN = '# a line of somebody else\n';

async function makeRig(t: TestContext): Promise<{rig: NginxRig; config: Config; now(): string; before: string; after: string}> {
  const dir = makeTempDir();
  const rig = await startNginx(dir, {inline: true, upstream: BLOCK});
  t.after(async () => {
    await rig.stop();
    removeTempDir(dir);
  });
  const config = parseConfig(`app: site\nsource:\n  working_copy: /srv/site/copy\nworkers:\n  command: [x]\n  ports: 40001-40030\nstate_dir: ${dir}/state\nnginx:\n  upstream: myweb\n  edit: ${rig.conf}\n  binary: ${NGINX}\n  conf: ${rig.conf}\n  prefix: ${dir}\n`, join(dir, 'osyw-deploy.yaml'), {HOME: '/root'});
  const before = readFileSync(rig.conf, 'utf8');
  return {rig, config, before, after: before.replace('40001', '40011').replace('40002', '40012'), now: () => readFileSync(rig.conf, 'utf8')};
}

const steps = (more: Partial<SwitchSteps> = {}): SwitchSteps => ({intend: () => undefined, reloading: () => undefined, ...more});
const refusedWith = (code: string, says: RegExp) => (error: unknown) => error instanceof DeployError && error.code === code && says.test(error.message);

test('another part of the file, between the look and the rename: it is kept, and the switch goes on', async (t) => {
  const {rig, config, after, now} = await makeRig(t);
  await switchUpstream(config, PORTS, steps({intend: () => appendFileSync(rig.conf, FOREIGN)}));
  assert.equal(now(), after + FOREIGN);
  assert.deepEqual(readdirSync(rig.prefix).filter(name => name.startsWith('.')), [], 'no candidate is left');
});

test('the addresses, between the look and the rename: refused, and their words stay', async (t) => {
  const {rig, config, before, now} = await makeRig(t);
  const theirs = before.replace('40002', '40003');
  await assert.rejects(switchUpstream(config, PORTS, steps({intend: () => writeFileSync(rig.conf, theirs)})), refusedWith('SWITCH_REFUSED', /was changed by somebody else/));
  assert.equal(now(), theirs);
  assert.deepEqual(readdirSync(rig.prefix).filter(name => name.startsWith('.')), []);
});

test('another part, and with a fault: nginx refuses the test, and the fault is left where it is', async (t) => {
  const {rig, config, before, now} = await makeRig(t);
  await assert.rejects(switchUpstream(config, PORTS, steps({intend: () => appendFileSync(rig.conf, 'no_such_directive;\n')})), refusedWith('SWITCH_REFUSED', /no_such_directive/));
  assert.equal(now(), `${before}no_such_directive;\n`);
});

test('a fault in a file that nginx reads by a link is known for one in the file of the deploy', async (t) => {
  const {rig, config, before} = await makeRig(t);
  const [real, link] = [join(rig.prefix, 'app'), join(rig.prefix, 'conf.d', 'app.conf')];
  writeFileSync(real, `${BLOCK}no_such_directive;\n`);
  symlinkSync('../app', link);
  writeFileSync(rig.conf, before.replace(BLOCK, ''));
  await assert.rejects(switchUpstream({...config, nginx: {...config.nginx, file: link}}, PORTS, steps()), (error: unknown) => {
    assert.ok(error instanceof DeployError);
    assert.match(error.message, /conf\.d\/app\.conf:5/);
    assert.doesNotMatch(error.message, /which is not the file of this deploy/);
    return true;
  });
});

test('a file of ours that somebody writes between the look and the rename is not overwritten either', async (t) => {
  const {rig, config, before} = await makeRig(t);
  const file = join(rig.prefix, 'conf.d', 'ours.conf');
  writeFileSync(rig.conf, before.replace(BLOCK, ''));
  writeFileSync(file, BLOCK);
  await rig.reload();
  const {edit: _, ...nginx} = config.nginx;
  const theirs = BLOCK.replace('40002', '40003');
  await assert.rejects(switchUpstream({...config, nginx: {...nginx, file}}, PORTS, steps({intend: () => writeFileSync(file, theirs)})), refusedWith('SWITCH_REFUSED', /was changed by somebody else/));
  assert.equal(readFileSync(file, 'utf8'), theirs);
});

test('two applications with their blocks in one file switch at the same time: both are there', async (t) => {
  const {rig, config, before, now} = await makeRig(t);
  const other = {...config, app: 'other', nginx: {...config.nginx, upstream: 'other'}};
  writeFileSync(rig.conf, before.replace(BLOCK, `${BLOCK}    upstream other { server 127.0.0.1:40003; }\n`));
  await rig.reload();
  for (const [mine, theirs] of [[[40_011, 40_012], [40_013]], [[40_021, 40_022], [40_023]], [[40_001, 40_002], [40_003]]] as const) {
    await Promise.all([switchUpstream(config, mine, steps()), switchUpstream(other, theirs, steps())]);
    assert.deepEqual([...now().matchAll(/server 127\.0\.0\.1:(400\d\d)/g)].map(([, port]) => Number(port)), [...mine, ...theirs]);
  }
  assert.deepEqual(readdirSync(rig.prefix).filter(name => name.startsWith('.')), []);
});

/** A port that nginx cannot have: `nginx -t` passes and the reload fails. */
async function takenPort(t: TestContext): Promise<number> {
  const lease = await leasePorts(1);
  const server = createServer();
  await new Promise<void>(resolve => {
    server.listen(lease.first, '127.0.0.1', resolve);
  });
  t.after(async () => {
    server.close();
    await lease.release();
  });
  return lease.first;
}

test('another part, after the rename, and the reload fails: the old addresses are back, and it is kept', async (t) => {
  const {rig, config, before, now} = await makeRig(t);
  rig.foreignFile(`server { listen 127.0.0.1:${await takenPort(t)}; }\n`);
  await assert.rejects(switchUpstream(config, PORTS, steps({reloading: () => appendFileSync(rig.conf, FOREIGN)})), refusedWith('SWITCH_REFUSED', /kept its old configuration/));
  assert.equal(now(), before + FOREIGN);
});

test('the addresses, after the rename, and the reload fails: nothing is overwritten, and that is said', async (t) => {
  const {rig, config, after, now} = await makeRig(t);
  rig.foreignFile(`server { listen 127.0.0.1:${await takenPort(t)}; }\n`);
  const theirs = after.replace('40012', '40003');
  await assert.rejects(switchUpstream(config, PORTS, steps({reloading: () => writeFileSync(rig.conf, theirs)})), refusedWith('STATE_UNCERTAIN', /somebody changed .* after it had been written/));
  assert.equal(now(), theirs);
});

test('the way back after a switch keeps what was written meanwhile; putting back does, too, and says when it cannot', async (t) => {
  const {rig, config, before, after, now} = await makeRig(t);
  let intent: SwitchIntent | undefined;
  await switchUpstream(config, PORTS, steps({intend: one => void (intent = one)}));
  assert.equal(now(), after);
  assert.ok(intent?.oldBytes);
  const old = Buffer.from(intent.oldBytes, 'base64');
  assert.equal(old.toString(), before);
  appendFileSync(rig.conf, FOREIGN);
  await restoreUpstream(config, old, intent.newHash, steps());
  assert.equal(now(), before + FOREIGN);
  writeFileSync(rig.conf, FOREIGN + after);
  putUpstreamBack(config, old);
  putUpstreamBack(config, old);
  assert.equal(now(), FOREIGN + before);
  writeFileSync(rig.conf, after.replace('upstream myweb', 'upstream other'));
  assert.throws(() => putUpstreamBack(config, old), refusedWith('STATE_UNCERTAIN', /cannot be put back: .*`upstream myweb` stands neither/));
  assert.equal(existsSync(join(rig.prefix, '.nginx.conf.site.osyw-new')), false);
});

test('the addresses, after the switch: the way back overwrites nothing, and says so', async (t) => {
  const {rig, config, after, now} = await makeRig(t);
  let intent: SwitchIntent | undefined;
  await switchUpstream(config, PORTS, steps({intend: one => void (intent = one)}));
  assert.ok(intent?.oldBytes);
  const theirs = after.replace('server 127.0.0.1:40012;', 'server 127.0.0.1:40012;\n        server 127.0.0.1:40003; # theirs');
  writeFileSync(rig.conf, theirs);
  await assert.rejects(restoreUpstream(config, Buffer.from(intent.oldBytes, 'base64'), intent.newHash, steps()), refusedWith('STATE_UNCERTAIN', /somebody changed .* after it had been written/));
  assert.equal(now(), theirs);
});

test('while no nginx runs: another part is kept, addresses of somebody else are refused, and so is a second name of the file', async (t) => {
  const {rig, config, before, after, now} = await makeRig(t);
  writeUpstreamAhead(config, PORTS, steps({intend: () => appendFileSync(rig.conf, FOREIGN)}));
  assert.equal(now(), after + FOREIGN);
  const theirs = before.replace('40002', '40003');
  assert.throws(() => writeUpstreamAhead(config, PORTS, steps({intend: () => writeFileSync(rig.conf, theirs)})), refusedWith('SWITCH_REFUSED', /was changed by somebody else/));
  assert.equal(now(), theirs);
  const second = `${rig.conf}.second`;
  linkSync(rig.conf, second);
  assert.throws(() => writeUpstreamAhead(config, PORTS, steps()), refusedWith('SWITCH_REFUSED', /second name/));
  await assert.rejects(switchUpstream(config, PORTS, steps()), refusedWith('SWITCH_REFUSED', /second name/));
  assert.equal(now(), theirs);
  unlinkSync(second);
});

test('what is written between the look and the rename is changed in its turn; one who never stops is left alone', (t) => {
  const dir = makeTempDir();
  t.after(() => removeTempDir(dir));
  const [path, candidate] = [join(dir, 'app.conf'), join(dir, '.app.conf.new')];
  writeFileSync(path, 'a;\n');
  let written = 0;
  changeFile(candidate, path, now => {
    if (written++ === 0) appendFileSync(path, FOREIGN);
    return Buffer.from(String(now).replace('a;', 'b;'));
  });
  assert.equal(readFileSync(path, 'utf8'), `b;\n${FOREIGN}`);
  assert.equal(written, 2);
  assert.throws(() => changeFile(candidate, path, now => {
    appendFileSync(path, FOREIGN);
    return Buffer.from(String(now).replace('b;', 'c;'));
  }), refusedWith('SWITCH_REFUSED', /again and again/));
  assert.match(readFileSync(path, 'utf8'), /^b;\n/);
  assert.deepEqual(readdirSync(dir), ['app.conf']);
});
