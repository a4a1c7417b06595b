# The functions for AWS Lambda, their template, and the deployment on one machine.

AWS_DIR   := build/aws
# The tables are DynamoDB's, so the other stores stay out; no current runtime of Lambda speaks the old protocol.
AWS_TAGS  := lambda.norpc,nosqlite,nopostgres
AWS_ARCHS := arm64 amd64
# A folder whose files go into the archive, such as identities.yaml for the management API.
AWS_FILES ?=

.PHONY: aws-package local-aws local-aws-deps test-aws

aws-package: ## build/aws/sluice-function-{arm64,amd64}.zip for Lambda; AWS_FILES=FOLDER adds files
	@set -e; for arch in $(AWS_ARCHS); do \
		mkdir -p $(AWS_DIR)/$$arch; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -buildvcs=false -tags $(AWS_TAGS) -ldflags "$(LDFLAGS)" \
			-o $(AWS_DIR)/$$arch/bootstrap ./cmd/sluice-function; \
		$(GO) run ./infra/aws/pack -o $(AWS_DIR)/sluice-function-$$arch.zip -files "$(AWS_FILES)" $(AWS_DIR)/$$arch/bootstrap; \
	done

local-aws-deps:
	localstack/deps

local-aws: build aws-package local-aws-deps ## the deployment of infra/aws on this machine: Lambda, DynamoDB, SQS and EventBridge are local
	$(GO) build -o bin/local-aws ./localstack/cmd/local-aws
	bin/local-aws $(LOCAL_AWS)

test-aws: build aws-package local-aws-deps ## the template, the archive and the local deployment
	SLUICE_TEST_ALL=1 $(GO) test -count=1 ./infra/aws/... ./localstack/... ./tests/aws
