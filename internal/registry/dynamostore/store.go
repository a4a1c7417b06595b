package dynamostore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

var (
	_ registry.Backend   = (*Store)(nil)
	_ assertion.KeyStore = (*Store)(nil)
)

// Options says which table to use and how. Table is required.
type Options struct {
	Table    string // name or ARN of the table
	Region   string // default: AWS_REGION, then AWS_DEFAULT_REGION
	Endpoint string // URL of another DynamoDB, such as DynamoDB Local; "" = that of the region

	// Credentials signs requests. nil reads the environment: the variables
	// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN as Lambda sets
	// them, else the endpoint that AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or
	// AWS_CONTAINER_CREDENTIALS_FULL_URI names, as ECS, Fargate and EKS set them.
	Credentials aws.CredentialsProvider

	// Indexes are the paths of devices' documents that searches filter by
	// without reading documents, such as {"ext", "site"}. They are recorded in the
	// table: what opens it later keeps those indexes too. See [Store.Reindex] for a
	// path that is added to a table with devices in it.
	Indexes [][]string

	// Create makes the table, billed on demand, when it is missing: for tests
	// and development. Elsewhere it belongs to what deploys the rest.
	Create bool

	Timeout  time.Duration // of one request to DynamoDB, its retries included; 0 = 5 s
	Patience time.Duration // how long a change goes on trying among competing writers; 0 = 20 s

	HTTPClient dynamodb.HTTPClient // nil = one of its own
}

// Store is the registry in one DynamoDB table. Safe for concurrent use, in any
// number of processes.
type Store struct {
	db       *dynamodb.Client
	http     dynamodb.HTTPClient
	table    string
	indexes  []string   // pointers of the indexes that changes keep
	ready    [][]string // paths of those that are complete
	timeout  time.Duration
	patience time.Duration
	observe  func(context.Context, []registry.Change)

	closing context.Context
	close   context.CancelFunc

	mu      sync.Mutex
	tenants map[iot.TenantID]*tenantLock
}

// Open connects to a table and checks that it is there. The error is one line
// that names the table.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := newStore(&o)
	if err != nil {
		return nil, fmt.Errorf("registry store: DynamoDB table %q: %w", o.Table, err)
	}
	if err := s.prepare(ctx, &o); err != nil {
		s.Close()
		return nil, fmt.Errorf("registry store: DynamoDB table %q in region %s: %w", o.Table, o.Region, err)
	}
	return s, nil
}

func newStore(o *Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Store{
		table: o.Table, http: o.HTTPClient, timeout: orDefault(o.Timeout, 5*time.Second), patience: orDefault(o.Patience, 20*time.Second),
		tenants: make(map[iot.TenantID]*tenantLock),
	}
	s.closing, s.close = context.WithCancel(context.Background())
	options := dynamodb.Options{
		Region: o.Region, Credentials: o.Credentials, HTTPClient: o.HTTPClient,
		// A few quick tries hide a lost packet; what lasts longer is the caller's
		// to know.
		Retryer: retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = 3
			r.MaxBackoff = 300 * time.Millisecond
		}),
	}
	if o.Endpoint != "" {
		options.BaseEndpoint = aws.String(o.Endpoint)
	}
	s.db = dynamodb.New(options)
	return s, nil
}

// complete checks the options and fills in what the environment says.
func (o *Options) complete() (err error) {
	if o.Table == "" {
		return errors.New("no table is named")
	}
	o.Region = cmp.Or(o.Region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"))
	if o.Region == "" {
		return errors.New("no region is named, and neither AWS_REGION nor AWS_DEFAULT_REGION is set")
	}
	for _, path := range o.Indexes {
		if n := len(pointer(path)); n == 0 || n > maxPath {
			return fmt.Errorf("index path %q has %d bytes, want 1 to %d", path, n, maxPath)
		}
	}
	if o.HTTPClient == nil {
		o.HTTPClient = newHTTPClient()
	}
	if o.Credentials == nil {
		o.Credentials, err = environment()
	}
	return err
}

func newHTTPClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	return &http.Client{Transport: t}
}

// Close ends calls in progress; later ones fail with iot.ErrUnavailable.
func (s *Store) Close() error {
	s.close()
	if c, ok := s.http.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	return nil
}

// Observe implements registry.Backend.
func (s *Store) Observe(f func(ctx context.Context, changes []registry.Change)) { s.observe = f }

// newToken is unique: it names a transaction or a generation of credentials.
func newToken() string { return rand.Text() }

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
