package oidc

import "time"

// Age makes the keys look older, and the last question longer ago.
func (v *Verifier) Age(d time.Duration) {
	v.keys.asked = v.keys.asked.Add(-d)
	if set := v.keys.current.Load(); set != nil {
		v.keys.current.Store(&keySet{list: set.list, tokenEndpoint: set.tokenEndpoint, from: set.from.Add(-d)})
	}
}

// Age is that of its verifier.
func (c *Client) Age(d time.Duration) { c.verifier.Age(d) }

// AskEvery, FreshFor and UsableFor are what they are called inside.
const (
	AskEvery  = askEvery
	FreshFor  = freshFor
	UsableFor = usableFor
)

// ParseKeys is how many keys of a set are usable.
var ParseKeys = parseKeys
