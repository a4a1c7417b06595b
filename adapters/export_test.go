package adapters

// Cached counts the answers in memory, expired ones included.
func (a *Admissions) Cached() int { return a.cache.len() }

// Watched counts the auth-ids and addresses that failed attempts are counted for.
func (a *Admissions) Watched() int {
	a.auth.mu.Lock()
	defer a.auth.mu.Unlock()
	a.address.mu.Lock()
	defer a.address.mu.Unlock()
	return len(a.auth.m) + len(a.address.m)
}

// Indexed counts the answers that notices find.
func (a *Admissions) Indexed() int { return a.follow.index.len() }
