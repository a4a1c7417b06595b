package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// startServers starts DynamoDB Local and LocalStack.
func (s *Stack) startServers(ctx context.Context) error {
	java, err := exec.LookPath("java")
	if err != nil {
		return fmt.Errorf("%w: run localstack/deps", err)
	}
	jars, python := s.repository("build", "dynamodb-local"), s.repository("build", "localstack", "bin", "python")
	for _, file := range []string{jars, python} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: run localstack/deps", err)
		}
	}
	_, port, _ := strings.Cut(s.addresses.dynamo, ":")
	if _, err := s.run(ctx, time.Second, "dynamodb", java, []string{"DDB_LOCAL_TELEMETRY=0"}, "http://"+s.addresses.dynamo,
		"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.library.path="+jars, "-cp", jars+"/*",
		"com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-sharedDb", "-port", port); err != nil {
		return err
	}
	_, err = s.run(ctx, 5*time.Second, "localstack", python, []string{
		"HOME=" + s.data("tmp"), "FILESYSTEM_ROOT=" + s.data("tmp", "localstack"),
		"GATEWAY_LISTEN=" + s.addresses.local, "LOCALSTACK_HOST=" + s.addresses.local, "SERVICES=sqs,events", "SQS_ENDPOINT_STRATEGY=path",
		"DISABLE_EVENTS=1", "SKIP_SSL_CERT_DOWNLOAD=1",
	}, s.Events+"/_localstack/health", "-m", "localstack.runtime.main")
	return err
}
