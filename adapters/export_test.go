package adapters

// Cached counts the answers in memory, expired ones included.
func (a *Admissions) Cached() int { return a.cache.len() }

// Watched counts the auth-ids and addresses that failed attempts are counted for.
func (a *Admissions) Watched() int { return a.auth.Len() + a.address.Len() }

// Indexed counts the answers that notices find.
func (a *Admissions) Indexed() int { return a.follow.index.len() }

// Pretend counts subscriptions that there are not.
func (s *Commands) Pretend(n int64) { s.open.Add(n) }
