package adapters

// Tenants counts the tenants whose figures are kept.
func (m *Meter) Tenants() (n int) {
	for i := range m.shards {
		m.shards[i].mu.Lock()
		n += len(m.shards[i].tenants)
		m.shards[i].mu.Unlock()
	}
	return n
}
