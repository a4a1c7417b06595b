// Package inproc posts facts to a router of the same process: nothing is
// encoded.
//
//	p := inproc.Poster(follower.Take)
//	err := p.Post(ctx, facts)
package inproc
