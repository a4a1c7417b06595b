package dynamotest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/listen/listentest"
)

// Region and credentials that DynamoDB Local takes; with one database for all
// it accepts any.
const (
	Region    = "eu-central-1"
	AccessKey = "local"
	SecretKey = "local"
)

var shared struct {
	once sync.Once
	s    *server
	err  error
}

// Run runs the tests of a binary and stops the server after them.
func Run(m *testing.M) int {
	defer func() {
		if shared.s != nil {
			shared.s.stop()
		}
	}()
	return m.Run()
}

// Endpoint returns the URL of the binary's server, which the first call
// starts. Without DynamoDB Local it skips the test with the reason, or fails it
// when SLUICE_TEST_ALL=1. The binary's TestMain must call [Run].
func Endpoint(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() { shared.s, shared.err = start() })
	switch err := shared.err; {
	case errors.Is(err, errMissing) && os.Getenv("SLUICE_TEST_ALL") != "1":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return shared.s.endpoint
}

var errMissing = errors.New("DynamoDB Local is not here (run tests/deps)")

type server struct {
	endpoint string
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	output   bytes.Buffer  // read after done
}

// start tries a few ports: one that is free now may be taken a moment later.
func start() (*server, error) {
	jars, err := folder()
	if err != nil {
		return nil, err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMissing, err)
	}
	for range 3 {
		var s *server
		if s, err = launch(java, jars); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// folder finds build/dynamodb-local of the module that is tested.
func folder() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the tests")
		}
		dir = parent
	}
	jars := filepath.Join(dir, "build", "dynamodb-local")
	if _, err := os.Stat(jars); err != nil {
		return "", fmt.Errorf("%w: no folder build/dynamodb-local", errMissing)
	}
	return jars, err
}

func launch(java, jars string) (*server, error) {
	port, err := listentest.FreePort()
	if err != nil {
		return nil, err
	}
	s := &server{endpoint: fmt.Sprintf("http://127.0.0.1:%d", port), done: make(chan struct{})}
	s.cmd = exec.Command(java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.library.path="+jars, "-cp", filepath.Join(jars, "*"),
		"com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-sharedDb", "-port", fmt.Sprint(port))
	s.cmd.Env = append(os.Environ(), "DDB_LOCAL_TELEMETRY=0")
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	s.cmd.SysProcAttr = withParent()
	started := make(chan error)
	go s.own(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return s, s.await()
}

// own starts the process and waits for it, on one thread: the signal of
// withParent comes when the thread that started the process ends.
func (s *server) own(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.cmd.Start()
	started <- err
	if err == nil {
		s.cmd.Wait() // ended by stop, or by itself: await sees that
		close(s.done)
	}
}

// await waits until the server answers.
func (s *server) await() error {
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for {
		resp, err := client.Get(s.endpoint)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("DynamoDB Local ended: %.500s", s.output.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Kill() // it keeps nothing
	<-s.done
}
