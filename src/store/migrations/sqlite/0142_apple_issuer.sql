-- Apple's issuer has two names and one space of subjects: identities are kept under the first of them. Where somebody has
-- become two users meanwhile, the row under the other name stays with its user.
DELETE FROM identities WHERE issuer = 'https://account.apple.com' AND EXISTS (
    SELECT 1 FROM identities i WHERE i.tenant = identities.tenant AND i.provider = identities.provider
    AND i.issuer = 'https://appleid.apple.com' AND i.subject = identities.subject AND i.user_id = identities.user_id);
UPDATE OR IGNORE identities SET issuer = 'https://appleid.apple.com' WHERE issuer = 'https://account.apple.com';
UPDATE OR IGNORE invitations SET issuer = 'https://appleid.apple.com' WHERE issuer = 'https://account.apple.com';
UPDATE link_offers SET issuer = 'https://appleid.apple.com' WHERE issuer = 'https://account.apple.com';
UPDATE challenge_links SET issuer = 'https://appleid.apple.com' WHERE issuer = 'https://account.apple.com';
