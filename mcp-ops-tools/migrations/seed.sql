-- What the lab starts with, at schema v2.
INSERT INTO customers (id, tier) VALUES
    ('acme', 'gold'), ('globex', 'silver'), ('initech', 'bronze');

INSERT INTO orders (id, customer, total, status) VALUES
    (1, 'acme', 199.00, 'paid'), (2, 'globex', 42.50, 'paid'), (3, 'initech', 1800.00, 'pending');
