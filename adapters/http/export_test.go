package http

import "context"

// WithPeer is the context of a request that a server of ours took in.
func WithPeer(ctx context.Context) context.Context { return context.WithValue(ctx, peerKey{}, &peer{}) }
