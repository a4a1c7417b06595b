// Package http posts facts to the ingresses of routers over HTTP (contract:
// events, sections 4.2 and 5).
//
// Every address behind each configured name is a router, and all get every
// change of the registry, in batches and at once; of a device that was provisioned
// one router is told, because it sends an event. What a router did not take goes to a
// broker, where one is configured, which repeats it into the ingress; without
// one the router finds it in the change feed. A router that does not answer is
// left alone for a while, so that it costs a writer its time once and not with each change.
//
//	p, err := http.New(http.Config{Name: name, URLs: []string{"https://routers.example:5674/events"}, TLS: conf, Log: log})
//	err = p.Post(ctx, facts)
package http
