package identity

import (
	"crypto/tls"
	"log/slog"
	"os"
	"strings"

	posthttp "github.com/sluice-iot/sluice/events/post/http"
	postsqs "github.com/sluice-iot/sluice/events/post/sqs"
	"github.com/sluice-iot/sluice/internal/config"
)

// NewPoster returns what brings facts to the routers, the broker and the sink
// that are configured, or nil where there is none of them. own proves this process to
// the routers' ingresses. The caller closes it.
func NewPoster(cfg *config.Config, own *tls.Config, log *slog.Logger) (*posthttp.Poster, error) {
	sink := os.Getenv(posthttp.SinkVariable)
	if len(cfg.Notices.Ingresses) == 0 && cfg.Notices.Broker == "" && sink == "" {
		return nil, nil
	}
	conf := posthttp.Config{Name: cfg.Name, URLs: cfg.Notices.Ingresses, TLS: own, Fallback: cfg.Notices.Broker, Sink: sink, Log: log}
	if url, ok := strings.CutPrefix(cfg.Notices.Broker, config.QueueScheme); ok {
		queue, err := postsqs.New(postsqs.Config{Name: cfg.Name, URL: url, Log: log})
		if err != nil {
			return nil, err
		}
		conf.Fallback, conf.Queue = "", queue
	}
	return posthttp.New(conf)
}
