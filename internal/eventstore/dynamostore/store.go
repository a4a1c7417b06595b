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

	"github.com/sluice-iot/sluice/internal/awsenv"
	"github.com/sluice-iot/sluice/internal/eventstore"
)

var _ eventstore.Store = (*Store)(nil)

// Options says which table to use and how. Table is required.
type Options struct {
	Table    string // name or ARN of the table
	Region   string // default: AWS_REGION, then AWS_DEFAULT_REGION
	Endpoint string // URL of another DynamoDB, such as DynamoDB Local; "" = that of the region

	// Credentials signs requests; nil = those of the environment, see awsenv.
	Credentials aws.CredentialsProvider

	// Create makes the table, billed on demand, when it is missing: for tests
	// and development. Elsewhere it belongs to what deploys the rest.
	Create bool

	Timeout  time.Duration // of one request to DynamoDB; 0 = 5 s
	Patience time.Duration // how long a change goes on trying among competing writers; 0 = 10 s

	HTTPClient dynamodb.HTTPClient // nil = one of its own
}

// maxAtOnce bounds how many changes a store works on at the same time.
const maxAtOnce = 64

// Store keeps partitions in one DynamoDB table. Safe for concurrent use, in
// any number of processes.
type Store struct {
	db       *dynamodb.Client
	http     dynamodb.HTTPClient
	table    string
	timeout  time.Duration
	patience time.Duration
	room     chan struct{} // holds one token for each change that is worked on

	closing context.Context
	close   context.CancelFunc

	mu    sync.Mutex
	slots map[eventstore.Key]*slot
	ends  map[eventstore.Key]uint64 // the latest End that a caller may have seen
}

// Open connects to a table and checks that it is there. The error is one line
// that names the table.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := newStore(&o)
	if err != nil {
		return nil, fmt.Errorf("event store: DynamoDB table %q: %w", o.Table, err)
	}
	if err := s.prepare(ctx, o.Create); err != nil {
		s.Close()
		return nil, fmt.Errorf("event store: DynamoDB table %q in region %s: %w", o.Table, o.Region, err)
	}
	return s, nil
}

func newStore(o *Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Store{
		table: o.Table, http: o.HTTPClient, timeout: orDefault(o.Timeout, 5*time.Second), patience: orDefault(o.Patience, 10*time.Second),
		room:  make(chan struct{}, maxAtOnce),
		slots: make(map[eventstore.Key]*slot), ends: make(map[eventstore.Key]uint64),
	}
	s.closing, s.close = context.WithCancel(context.Background())
	options := dynamodb.Options{
		Region: o.Region, Credentials: o.Credentials, HTTPClient: o.HTTPClient,
		// A few quick tries hide a lost packet; what lasts longer is the caller's
		// to know.
		Retryer: retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts = maxTries
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
func (o *Options) complete() error {
	if o.Table == "" {
		return errors.New("no table is named")
	}
	if o.Region = cmp.Or(o.Region, awsenv.Region()); o.Region == "" {
		return errors.New("no region is named, and neither AWS_REGION nor AWS_DEFAULT_REGION is set")
	}
	if o.HTTPClient == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = maxAtOnce
		o.HTTPClient = &http.Client{Transport: t}
	}
	if o.Credentials == nil {
		o.Credentials = awsenv.Credentials()
	}
	return nil
}

// Close ends calls in progress; later ones fail with iot.ErrUnavailable.
func (s *Store) Close() error {
	s.close()
	if c, ok := s.http.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	return nil
}

// newToken is unique: it names one write of a state.
func newToken() string { return rand.Text() }

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
