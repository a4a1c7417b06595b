package http

import (
	"context"
	nethttp "net/http"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// WithPeer is the context of a request that a server of ours took in.
func WithPeer(ctx context.Context) context.Context { return context.WithValue(ctx, peerKey{}, &peer{}) }

// GiveOut is the request id that a device is given.
func GiveOut(id string) string { return giveOut(id) }

// TakeBack reads the path of a device's response.
func TakeBack(path string, device iot.DeviceID) (adapters.ResponseTo, error) {
	t, err := parseTarget(path)
	if err == nil {
		err = t.response(nethttp.MethodPost)
	}
	if err != nil {
		return adapters.ResponseTo{}, err
	}
	id, err := takeBack(t.request)
	if err != nil {
		return adapters.ResponseTo{}, err
	}
	return adapters.ParseRequestID(id, device)
}
