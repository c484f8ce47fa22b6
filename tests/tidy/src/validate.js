// node -e THIS -- NODE_MODULES SCHEMA DOCUMENT...: a line for each error, and 1 when there is one.
const fs = require('fs');
const [modules, schemaFile, ...documents] = process.argv.slice(1);
const Ajv = require(modules + '/ajv').default;
const yaml = require(modules + '/js-yaml');
const schema = JSON.parse(fs.readFileSync(schemaFile, 'utf8'));
const validate = new Ajv({ strict: false, allErrors: true, validateFormats: false, verbose: false }).compile(schema);
let failed = false;
for (const file of documents) {
    for (const document of yaml.loadAll(fs.readFileSync(file, 'utf8'))) {
        if (!validate(document)) {
            failed = true;
            for (const error of validate.errors) console.log(file + error.instancePath + ': ' + error.message);
        }
    }
}
process.exit(failed ? 1 : 0);
